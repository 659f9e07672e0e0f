from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from medloop_model.statistics import activation_statistics, decision_statistics, moved_by_one_pixel, softmax


def test_probabilities_are_those_of_scipy() -> None:
    logits = np.random.default_rng(0).normal(0, 8, (64, 5)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits), scipy.special.softmax(logits, axis=1), rtol=1e-5)


def test_even_logits_are_the_least_certain_answer() -> None:
    logits = np.full((1, 4), 2.0, np.float32)
    statistics = decision_statistics(logits, softmax(logits))
    assert statistics["entropy"][0] == pytest.approx(np.log(4))
    assert statistics["margin"][0] == pytest.approx(0)
    assert statistics["energy"][0] == pytest.approx(-(2 + np.log(4)))
    assert statistics["inconsistency"][0] == pytest.approx(0)


def test_inconsistency_is_the_probability_mass_that_moves() -> None:
    logits = np.log(np.array([[0.9, 0.1]], np.float32))
    statistics = decision_statistics(logits, np.array([[0.6, 0.4]], np.float32))
    assert statistics["inconsistency"][0] == pytest.approx(0.6, rel=1e-5)
    assert statistics["margin"][0] == pytest.approx(0.8, rel=1e-5)


def test_huge_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4]], np.float32)
    statistics = decision_statistics(logits, softmax(logits))
    assert all(np.isfinite(values).all() for values in statistics.values())
    assert statistics["energy"][0] == pytest.approx(-1e4)


def test_one_class_has_full_margin() -> None:
    logits = np.array([[3.0]], np.float32)
    assert decision_statistics(logits, softmax(logits))["margin"][0] == pytest.approx(1)


def test_each_block_and_measure_gets_its_own_name() -> None:
    blocks = np.arange(16, dtype=np.float32).reshape(2, 2, 4)
    statistics = activation_statistics(blocks)
    assert len(statistics) == 8
    np.testing.assert_array_equal(statistics["block1.saturated"], [6, 14])
    np.testing.assert_array_equal(statistics["block0.dead"], [3, 11])


def test_moving_by_one_pixel_shifts_the_inside_and_repeats_the_border() -> None:
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    np.testing.assert_array_equal(moved_by_one_pixel(image)[0], [[0, 0, 1], [0, 0, 1], [3, 3, 4]])
    np.testing.assert_array_equal(image[0], np.arange(9).reshape(3, 3))
