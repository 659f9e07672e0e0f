"""What `medloop bench drift` makes of first alarms, and the streams that it draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from streams import STAY, Kind, draw_classes, draw_images
from summary import delays, geometric_mean, run_length

CHANGE, AFTER = 300, 1500


def test_delays_count_from_the_change():
    seen = delays([310, 320, 400], CHANGE, AFTER)
    assert (seen.median, seen.p90, seen.power, seen.early) == (20, 100, 1.0, 0)


def test_a_missed_change_counts_as_one_image_more_than_there_were():
    seen = delays([None, None, 316], CHANGE, AFTER)
    assert (seen.median, seen.p90) == (AFTER + 1, AFTER + 1)
    assert seen.power == pytest.approx(1 / 3)


def test_an_alarm_of_which_the_evidence_came_after_the_last_image_is_missed():
    assert delays([CHANGE + AFTER + 20], CHANGE, AFTER).power == 0


def test_streams_that_alarm_before_the_change_are_counted_apart():
    seen = delays([CHANGE, 100, 340], CHANGE, AFTER)
    assert (seen.streams, seen.early, seen.median, seen.power) == (3, 2, 40, 1.0)


def test_a_detector_that_always_alarms_early_is_worth_no_more_than_one_that_never_does():
    seen = delays([16, 16], CHANGE, AFTER)
    assert (seen.median, seen.power, seen.early) == (AFTER + 1, 0, 2)


def test_the_mean_run_length_is_all_images_by_all_alarms():
    run = run_length([1000, None, None, 2000], 4000)
    assert (run.images, run.alarms, run.mean) == (11_000, 2, 5500)
    # Exact Poisson interval of 2 events: 0.2422 to 7.2247.
    assert run.low == pytest.approx(11_000 / 7.2247, rel=1e-4)
    assert run.high == pytest.approx(11_000 / 0.2422, rel=1e-3)


def test_without_an_alarm_only_a_lower_bound_is_known():
    run = run_length([None] * 5, 4000)
    assert math.isinf(run.mean)
    assert math.isinf(run.high)
    assert run.low == pytest.approx(20_000 / 3.6889, rel=1e-4)


def test_the_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(0)
    mean, covered = 3000, 0
    for _ in range(400):
        times = generator.exponential(mean, 20)
        run = run_length([int(time) if time < 4000 else None for time in times], 4000)
        covered += run.low <= mean <= run.high
    assert covered >= 0.93 * 400


def test_the_geometric_mean():
    assert geometric_mean([10, 1000]) == pytest.approx(100)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.15, 0.85), (0.2, 0.3, 0.5)])
def test_a_sticky_stream_keeps_the_stay_probability_and_the_class_mix(shares):
    generator = np.random.default_rng(0)
    classes = draw_classes(Kind.CORRELATED, np.tile(shares, (400_000, 1)), generator)
    assert (classes[1:] == classes[:-1]).mean() == pytest.approx(STAY, abs=0.002)
    mix = np.bincount(classes, minlength=len(shares)) / len(classes)
    np.testing.assert_allclose(mix, shares, atol=0.02)


def test_an_independent_stream_has_the_class_mix_and_nothing_else():
    classes = draw_classes(Kind.IID, np.tile((0.3, 0.7), (100_000, 1)), np.random.default_rng(0))
    assert classes.mean() == pytest.approx(0.7, abs=0.01)
    assert (classes[1:] == classes[:-1]).mean() == pytest.approx(0.58, abs=0.01)


def test_a_class_that_is_nearly_alone_is_drawn_too():
    classes = draw_classes(Kind.CORRELATED, np.tile((0.0, 1.0), (100, 1)), np.random.default_rng(0))
    assert set(classes) == {1}


def test_a_change_of_the_mix_shows_after_it():
    shares = np.concatenate([np.tile((0.9, 0.1), (50_000, 1)), np.tile((0.1, 0.9), (50_000, 1))])
    classes = draw_classes(Kind.CORRELATED, shares, np.random.default_rng(0))
    assert classes[:50_000].mean() == pytest.approx(0.1, abs=0.03)
    assert classes[50_000:].mean() == pytest.approx(0.9, abs=0.03)


def test_images_are_drawn_from_their_class():
    labels = np.array([0, 1, 1, 2, 0])
    classes = np.array([2, 1, 0, 1, 2, 2, 0])
    rows = draw_images(classes, labels, np.random.default_rng(0))
    np.testing.assert_array_equal(labels[rows], classes)
