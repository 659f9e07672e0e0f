from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_model.calibration import (
    COOLEST,
    HOTTEST,
    estimate_priors,
    expected_calibration_error,
    fit_temperature,
)
from medloop_model.errors import ShapeError
from medloop_model.statistics import softmax
from scipy.optimize import minimize_scalar


def answers(count: int, classes: int, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn of what the logits times `sharpness` say."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(count, classes)) * 2
    true = softmax(logits * sharpness)
    labels = (true.cumsum(axis=1) > draw.random((count, 1))).argmax(axis=1)
    return logits, labels


def error_by_the_book(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Guo et al., eq. 3, bin by bin."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for m in range(1, 16):
        inside = ((m - 1) / 15 < confidence) & (confidence <= m / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@given(st.integers(1, 200), st.integers(2, 5), st.integers(0, 1000))
def test_the_error_is_the_published_one(count: int, classes: int, seed: int) -> None:
    logits, labels = answers(count, classes, seed)
    probabilities = softmax(logits)
    error = expected_calibration_error(probabilities, labels)
    assert error.shape == (1,)
    assert error[0] == pytest.approx(error_by_the_book(probabilities, labels), abs=1e-12)


@given(st.integers(1, 60), st.integers(0, 1000))
def test_a_draw_counts_an_image_as_often_as_it_was_drawn(count: int, seed: int) -> None:
    logits, labels = answers(count, 3, seed)
    drawn = np.random.default_rng(seed).integers(0, count, count)
    draws = np.bincount(drawn, minlength=count)[None]
    (error,) = expected_calibration_error(softmax(logits), labels, draws)
    assert error == pytest.approx(error_by_the_book(softmax(logits)[drawn], labels[drawn]), abs=1e-12)


def test_a_model_that_is_always_sure_is_off_by_what_it_gets_wrong() -> None:
    probabilities = np.tile([1.0, 0.0], (10, 1))
    labels = np.array([0] * 7 + [1] * 3)
    assert expected_calibration_error(probabilities, labels)[0] == pytest.approx(0.3)


def test_a_class_that_the_model_lacks_is_never_found() -> None:
    assert expected_calibration_error(np.array([[0.75, 0.25]]), np.array([2]))[0] == pytest.approx(0.75)


def test_of_no_image_there_is_no_error() -> None:
    assert np.isnan(expected_calibration_error(np.zeros((0, 2)), np.zeros(0, np.int64))[0])


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="3 labels"):
        expected_calibration_error(np.full((2, 2), 0.5), np.zeros(3, np.int64))


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_temperature_is_the_likeliest(sharpness: float) -> None:
    logits, labels = answers(3000, 3, 1, sharpness)

    def loss(temperature: float) -> float:
        return float(-np.log(softmax(logits / temperature)[np.arange(len(labels)), labels]).mean())

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(logits, labels) == pytest.approx(best, rel=1e-4)
    assert fit_temperature(logits, labels) == pytest.approx(1 / sharpness, rel=0.2)


def test_an_image_with_twice_the_weight_is_two_images() -> None:
    logits, labels = answers(50, 3, 2)
    weight = np.ones(50)
    weight[:10] = 2
    twice = fit_temperature(np.concatenate([logits, logits[:10]]), np.concatenate([labels, labels[:10]]))
    assert fit_temperature(logits, labels, weight) == pytest.approx(twice)


def test_temperatures_stay_within_bounds() -> None:
    logits = np.array([[4.0, 0.0], [0.0, 4.0]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(COOLEST)
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(HOTTEST)


@pytest.mark.parametrize("labels", [[], [0], [0, 2], [-1, 0]])
def test_a_temperature_needs_labels_of_known_classes(labels: list[int]) -> None:
    with pytest.raises(ShapeError, match="labelled images"):
        fit_temperature(np.zeros((2, 2)), np.array(labels, np.int64))


def overlapping(count: int, priors: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact answers, under even priors, to points of normal classes at −1, 0 and 1; and their labels."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(3, size=count, p=priors)
    points = draw.normal(labels - 1.0, 0.7)
    likelihood = np.exp(-((points[:, None] - np.array([-1.0, 0.0, 1.0])) ** 2) / (2 * 0.7**2))
    return likelihood / likelihood.sum(axis=1, keepdims=True), labels


def test_new_priors_are_found_from_answers_alone() -> None:
    priors = np.array([0.1, 0.2, 0.7])
    probabilities, _ = overlapping(20_000, priors, 0)
    found = estimate_priors(probabilities, np.full(3, 1 / 3))
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, priors, atol=0.03)


def test_they_are_the_likeliest_priors() -> None:
    probabilities, _ = overlapping(300, np.array([0.5, 0.1, 0.4]), 1)
    found = (estimate_priors(probabilities, np.full(3, 1 / 3)) * 303 - 1) / 300

    def likelihood(priors: np.ndarray) -> float:
        return float(np.log((probabilities * 3) @ priors).sum())

    for other in np.random.default_rng(2).dirichlet(found * 200 + 0.1, 200):
        assert likelihood(found) >= likelihood(other) - 1e-6


def test_a_class_that_did_not_come_is_not_ruled_out() -> None:
    found = estimate_priors(np.tile([1.0, 0.0], (98, 1)), np.array([0.5, 0.5]))
    np.testing.assert_allclose(found, [0.99, 0.01])


@pytest.mark.parametrize(
    ("count", "priors", "sentence"),
    [(0, [0.5, 0.5], "don't fit"), (2, [1.0], "don't fit"), (2, [1.0, 0.0], "above 0")],
)
def test_priors_need_answers_and_old_priors(count: int, priors: list[float], sentence: str) -> None:
    with pytest.raises(ShapeError, match=sentence):
        estimate_priors(np.full((count, 2), 0.5), np.array(priors))
