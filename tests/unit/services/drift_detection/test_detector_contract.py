"""What every image detector promises, by the name under which the settings choose it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from medloop_model.statistics import Reference
from medloop_schemas import DetectorReading, StatsMeasured
from medloop_services.drift_detection.detectors.detector import Images
from medloop_services.drift_detection.panel import DETECTORS, Panel, PanelState
from medloop_services.drift_detection.settings import DETECTOR_NAMES, DriftDetectionSettings

StatsOf = Callable[..., list[StatsMeasured]]

MIX = "prior"
"""Watches the model's answers, which no shift of the statistics moves: it has its own tests of detection."""


@pytest.fixture(scope="module")
def everything(reference: Reference) -> Panel:
    return Panel.calibrated(reference, DriftDetectionSettings(detectors=DETECTOR_NAMES))


@pytest.fixture(params=DETECTOR_NAMES)
def panel(request: pytest.FixtureRequest, everything: Panel) -> Panel:
    """A panel of one detector, with the threshold that it has among all."""
    (detector,) = [each for each in everything.detectors if each.name == request.param]
    return replace(everything, detectors=(detector,))


@pytest.fixture
def watches_images(panel: Panel) -> None:
    if panel.detectors[0].name == MIX:
        pytest.skip("it watches the answers alone")


def after(panel: Panel, events: list[StatsMeasured], state: PanelState | None = None) -> PanelState:
    state = state or panel.initial()
    for event in events:
        state = panel.after_images(state, event)
    return state


def readings(panel: Panel, state: PanelState) -> list[DetectorReading]:
    return [
        reading
        for reading in panel.readings(state)
        if reading.detector != "sensor" and reading.layer != "label"
    ]


def alarms(panel: Panel, state: PanelState) -> list[DetectorReading]:
    return [reading for reading in readings(panel, state) if reading.alarmed]


def drifting(stats: StatsOf, shift: float, before: int = 160, later: int = 160) -> list[StatsMeasured]:
    return stats(before, seed=3) + stats(later, seed=4, shift=shift, first=before)


def test_the_settings_know_every_detector() -> None:
    assert set(DETECTORS) == set(DETECTOR_NAMES)
    with pytest.raises(ValueError, match="there is no detector 'magic'"):
        DriftDetectionSettings(detectors=("magic",))


def test_it_is_quiet_before_the_first_image(panel: Panel) -> None:
    assert not readings(panel, panel.initial())


@pytest.mark.parametrize("seed", range(3))
def test_it_stays_quiet_on_a_stationary_stream(panel: Panel, stats: StatsOf, seed: int) -> None:
    state = panel.initial()
    for event in stats(640, seed=100 + seed):
        state = panel.after_images(state, event)
        assert not alarms(panel, state)


@pytest.mark.parametrize("shift", [1.5, -1.5])
@pytest.mark.usefixtures("watches_images")
def test_it_alarms_within_a_hundred_images_of_a_shift(panel: Panel, stats: StatsOf, shift: float) -> None:
    assert alarms(panel, after(panel, drifting(stats, shift, later=96)))


@pytest.mark.usefixtures("watches_images")
def test_it_says_where_the_change_began(panel: Panel, stats: StatsOf) -> None:
    state = panel.initial()
    for event in drifting(stats, shift=2.0):
        state = panel.after_images(state, event)
        if alarmed := alarms(panel, state):
            break
    assert alarmed
    assert all(abs((reading.since_sequence or 0) - 160) <= 32 for reading in alarmed)


def test_an_alarm_is_a_value_above_its_threshold(panel: Panel, stats: StatsOf) -> None:
    state = panel.initial()
    for event in drifting(stats, shift=1.5):
        state = panel.after_images(state, event)
        for reading in readings(panel, state):
            assert reading.alarmed == (reading.value > reading.threshold)
            assert reading.alarmed == (reading.since_sequence is not None)


def test_each_layer_has_at_most_one_reading(panel: Panel, stats: StatsOf) -> None:
    layers = [reading.layer for reading in readings(panel, after(panel, stats(160, seed=5)))]
    assert layers
    assert len(layers) == len(set(layers))


def test_a_state_read_back_decides_like_the_one_that_was_written(panel: Panel, stats: StatsOf) -> None:
    live = after(panel, stats(160, seed=6))
    rebuilt = PanelState.model_validate_json(live.model_dump_json())
    for event in stats(96, seed=7, shift=1.0, first=160):
        live, rebuilt = panel.after_images(live, event), panel.after_images(rebuilt, event)
        assert rebuilt == live
        assert panel.readings(rebuilt) == panel.readings(live)


def test_its_state_is_bounded(panel: Panel, stats: StatsOf) -> None:
    observed = stats(1600, seed=8)
    halfway, end = after(panel, observed[:50]), after(panel, observed)
    assert len(end.model_dump_json()) < 1.01 * len(halfway.model_dump_json())
    assert len(end.model_dump_json()) < 256 * 1024


def test_an_update_leaves_the_old_state_as_it_was(panel: Panel, stats: StatsOf) -> None:
    observed = stats(96, seed=9)
    state = after(panel, observed[:5])
    before = state.model_dump_json()
    panel.after_images(state, observed[5])
    assert state.model_dump_json() == before


def test_one_odd_image_is_no_drift(panel: Panel, stats: StatsOf) -> None:
    state = panel.initial()
    for number, event in enumerate(stats(160, seed=10)):
        images = panel.baseline.batch(event)
        if number == 5:
            scores, features = images.scores.copy(), images.features.copy()
            scores[0, 3], features[0, 3] = 3.0, 3.0
            images = Images(scores, features, images.probabilities)
        state = panel.after(state, images, event.last_sequence)
    assert not alarms(panel, state)


def test_many_streams_at_once_are_what_each_is_alone(panel: Panel, stats: StatsOf) -> None:
    (detector,) = panel.detectors
    alone = [[panel.baseline.batch(event) for event in stats(96, seed=seed)] for seed in (11, 12)]
    together = [joined(first, second) for first, second in zip(*alone, strict=True)]
    expected = [follow(detector, images, panel.window) for images in alone]
    found = follow(detector, together, panel.window)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-9, atol=1e-12)


def test_a_batch_of_sixteen_is_sixteen_of_one(panel: Panel, stats: StatsOf) -> None:
    (detector,) = panel.detectors
    batches = [panel.baseline.batch(event) for event in stats(96, seed=13, shift=0.5)]
    singly = [part(images, index) for images in batches for index in range(len(images))]
    np.testing.assert_allclose(
        follow(detector, singly, panel.window), follow(detector, batches, panel.window), rtol=1e-9, atol=1e-9
    )


def test_constant_images_are_followed(panel: Panel, stats: StatsOf) -> None:
    (event,) = stats(16, seed=14)
    images = part(panel.baseline.batch(event), 0)
    state = panel.initial()
    for sequence in range(200):
        state = panel.after(state, images, sequence)
    assert all(np.isfinite(reading.value) for reading in readings(panel, state))


def follow(detector: Any, batches: list[Images], window: int) -> Any:
    memory, recent = detector.start(len(batches[0].scores)), batches[0]
    for number, images in enumerate(batches):
        memory = detector.advance(memory, images)
        recent = recent.then(images, window) if number else images
    return detector.statistics(memory, recent)


def joined(first: Images, second: Images) -> Images:
    return Images(
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.features, second.features]),
        np.concatenate([first.probabilities, second.probabilities]),
    )


def part(images: Images, index: int) -> Images:
    rows = slice(index, index + 1)
    return Images(images.scores[:, rows], images.features[:, rows], images.probabilities[:, rows])
