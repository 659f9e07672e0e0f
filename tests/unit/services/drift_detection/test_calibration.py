"""The streams that thresholds are calibrated on, and the contract on streams that it has not seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_model.statistics import Reference
from medloop_schemas import StatsMeasured
from medloop_services.drift_detection.calibration import draw_classes, draw_stream
from medloop_services.drift_detection.panel import Panel
from medloop_services.drift_detection.settings import DriftDetectionSettings

StatsOf = Callable[..., list[StatsMeasured]]


def test_sticky_classes_keep_mix_and_agreement() -> None:
    shares = np.tile([0.3, 0.7], (400, 500, 1))
    classes = draw_classes(shares, np.full(400, 0.97), np.random.default_rng(0))
    assert classes.mean() == pytest.approx(0.7, abs=0.02)
    assert (classes[:, 1:] == classes[:, :-1]).mean() == pytest.approx(0.97, abs=0.003)


def test_independent_classes_agree_by_chance_alone() -> None:
    shares = np.tile([0.3, 0.7], (400, 500, 1))
    classes = draw_classes(shares, np.zeros(400), np.random.default_rng(1))
    assert (classes[:, 1:] == classes[:, :-1]).mean() == pytest.approx(0.3**2 + 0.7**2, abs=0.005)


@given(st.integers(1, 5), st.integers(0, 1_000))
def test_a_study_that_has_begun_is_shown_whole(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    studies = np.arange(20 * size) // size
    labels = studies % 2
    classes = random.integers(0, 2, (3, 40))
    rows = draw_stream(classes, labels, studies, random)
    for stream in rows:
        starts = stream[::size]
        assert (starts % size == 0).all()
        np.testing.assert_array_equal(stream, (starts[:, None] + np.arange(size)).reshape(-1)[:40])


def test_single_images_are_of_the_class_asked_for() -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, 3, 60)
    classes = random.integers(0, 3, (4, 50))
    np.testing.assert_array_equal(labels[draw_stream(classes, labels, np.arange(60), random)], classes)


def test_the_contract_holds_on_streams_that_calibration_has_not_seen(panel: Panel, stats: StatsOf) -> None:
    """One alarm in 5,000 images: of 60 streams of 1,000, 11 on average; 22 and more in 1 of 1,000 panels."""
    assert sum(alarmed(panel, stats(992, seed=1_000 + seed)) for seed in range(60)) < 22


def test_a_stricter_contract_has_higher_thresholds(reference: Reference, panel: Panel) -> None:
    strict = Panel.calibrated(reference, DriftDetectionSettings(images_per_false_alarm=50_000))
    for usual, higher in zip(panel.detectors, strict.detectors, strict=True):
        assert (higher.thresholds > usual.thresholds).all()


def test_a_contract_by_the_week_is_one_by_images() -> None:
    settings = DriftDetectionSettings(images_per_week=700, false_alarms_per_week=0.1)
    assert settings.images_per_alarm == pytest.approx(7_000)


def test_thresholds_are_the_same_every_time(reference: Reference, settings: DriftDetectionSettings) -> None:
    few = settings.model_copy(update={"detectors": ("mmd",)})
    first, again = Panel.calibrated(reference, few), Panel.calibrated(reference, few)
    np.testing.assert_array_equal(first.detectors[0].thresholds, again.detectors[0].thresholds)


def alarmed(panel: Panel, events: list[StatsMeasured]) -> bool:
    state = panel.initial()
    for event in events:
        state = panel.after_images(state, event)
        if any(reading.alarmed for reading in panel.readings(state)):
            return True
    return False


def test_a_detector_whose_scalars_the_reference_lacks_is_left_out(reference: Reference) -> None:
    settings = DriftDetectionSettings(detectors=("mmd", "adwin"), adwin_scalars=("data.magic",))
    panel = Panel.calibrated(reference, settings)
    assert [detector.name for detector in panel.detectors] == ["mmd"]


def test_a_window_longer_than_what_is_remembered_is_refused() -> None:
    with pytest.raises(ValueError, match="raise that, or lower this"):
        DriftDetectionSettings(window_images=256, recent_images=128)
