"""What every image detector promises; a new one is a line in `DETECTORS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from medloop_schemas import StatsMeasured
from medloop_services.drift_detection.detectors.detector import Batch, Detector
from medloop_services.drift_detection.panel import Panel

DETECTORS = ("cusum", "adwin", "ks", "mmd")

StatsOf = Callable[..., list[StatsMeasured]]


@pytest.fixture(params=DETECTORS)
def detector(request: pytest.FixtureRequest, panel: Panel) -> Detector[Any]:
    found: Detector[Any] = getattr(panel, request.param)
    assert found.name == request.param
    return found


def batches(panel: Panel, events: list[StatsMeasured]) -> list[Batch]:
    return [panel.baseline.batch(event) for event in events]


def after(detector: Detector[Any], observed: list[Batch]) -> Any:
    state = detector.initial()
    for batch in observed:
        state = detector.update(state, batch)
    return state


def alarms(detector: Detector[Any], state: Any) -> list[Any]:
    return [reading for reading in detector.readings(state) if reading.alarmed]


def drifting(stats: StatsOf, shift: float, before: int = 160, later: int = 160) -> list[StatsMeasured]:
    return stats(before, seed=3) + stats(later, seed=4, shift=shift, first=before)


def test_it_is_quiet_before_the_first_image(detector: Detector[Any]) -> None:
    assert not alarms(detector, detector.initial())


@pytest.mark.parametrize("seed", range(3))
def test_it_stays_quiet_on_a_stationary_stream(
    detector: Detector[Any], panel: Panel, stats: StatsOf, seed: int
) -> None:
    state = detector.initial()
    for batch in batches(panel, stats(640, seed=100 + seed)):
        state = detector.update(state, batch)
        assert not alarms(detector, state)


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_it_alarms_within_a_hundred_images_of_a_shift_by_one_deviation(
    detector: Detector[Any], panel: Panel, stats: StatsOf, shift: float
) -> None:
    assert alarms(detector, after(detector, batches(panel, drifting(stats, shift, later=96))))


def test_it_says_where_the_change_began(detector: Detector[Any], panel: Panel, stats: StatsOf) -> None:
    state = detector.initial()
    for batch in batches(panel, drifting(stats, shift=2.0)):
        state = detector.update(state, batch)
        if alarmed := alarms(detector, state):
            break
    assert all(abs(reading.since_sequence - 160) <= 32 for reading in alarmed)


def test_an_alarm_is_a_value_above_its_threshold(
    detector: Detector[Any], panel: Panel, stats: StatsOf
) -> None:
    state = detector.initial()
    for batch in batches(panel, drifting(stats, shift=1.5)):
        state = detector.update(state, batch)
        for reading in detector.readings(state):
            assert reading.alarmed == (reading.value > reading.threshold)
            assert reading.alarmed == (reading.since_sequence is not None)


def test_each_layer_has_at_most_one_reading(detector: Detector[Any], panel: Panel, stats: StatsOf) -> None:
    layers = [
        reading.layer for reading in detector.readings(after(detector, batches(panel, stats(160, seed=5))))
    ]
    assert layers
    assert len(layers) == len(set(layers))


def test_a_state_read_back_decides_like_the_one_that_was_written(
    detector: Detector[Any], panel: Panel, stats: StatsOf
) -> None:
    live = after(detector, batches(panel, stats(160, seed=6)))
    rebuilt = type(live).model_validate_json(live.model_dump_json())
    for batch in batches(panel, stats(96, seed=7, shift=1.0, first=160)):
        live, rebuilt = detector.update(live, batch), detector.update(rebuilt, batch)
        assert rebuilt == live
        assert detector.readings(rebuilt) == detector.readings(live)


def test_its_state_stops_growing(detector: Detector[Any], panel: Panel, stats: StatsOf) -> None:
    observed = batches(panel, stats(1600, seed=8))
    halfway, end = after(detector, observed[:50]), after(detector, observed)
    assert len(end.model_dump_json()) < 1.1 * len(halfway.model_dump_json())


def test_an_update_leaves_the_old_state_as_it_was(
    detector: Detector[Any], panel: Panel, stats: StatsOf
) -> None:
    observed = batches(panel, stats(96, seed=9))
    state = after(detector, observed[:5])
    before = state.model_dump_json()
    detector.update(state, observed[5])
    assert state.model_dump_json() == before


def test_one_odd_image_is_no_drift(detector: Detector[Any], panel: Panel, stats: StatsOf) -> None:
    observed = batches(panel, stats(160, seed=10))
    odd = observed[5]
    scores, features = odd.scores.copy(), odd.features.copy()
    scores[3], features[3] = 3.0, 50.0
    observed[5] = Batch(odd.sequences, scores, features)
    assert np.isfinite(scores).all()
    assert not alarms(detector, after(detector, observed))
