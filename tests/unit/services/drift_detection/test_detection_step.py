from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from medloop_model.statistics import Reference
from medloop_schemas import (
    DriftSignalled,
    Event,
    InvalidEvent,
    LabelConfirmed,
    Layer,
    StatsMeasured,
    TransientError,
)
from medloop_services.drift_detection.detection import step
from medloop_services.drift_detection.panel import Panel
from medloop_services.drift_detection.settings import DriftDetectionSettings
from medloop_services.drift_detection.state import DetectionState

StatsOf = Callable[..., list[StatsMeasured]]
LabelOf = Callable[..., LabelConfirmed]


class Device:
    """One device's state and signals."""

    def __init__(self, panel: Panel, settings: DriftDetectionSettings) -> None:
        self.state = DetectionState(device_id="device")
        self.signals: list[DriftSignalled] = []
        self._panel = panel
        self._settings = settings

    def see(self, events: Sequence[Event]) -> list[DriftSignalled]:
        new: list[DriftSignalled] = []
        for event in events:
            self.state, signals = step(self.state, event, self._settings, lambda _version: self._panel)
            new += signals
        self.signals += new
        return new

    @property
    def predictions(self) -> dict[str, int]:
        return {image: waiting.predicted_class for image, waiting in self.state.predictions.items()}


@pytest.fixture
def device(panel: Panel, settings: DriftDetectionSettings) -> Device:
    return Device(panel, settings)


def test_every_micro_batch_is_answered_by_where_all_detectors_stand(device: Device, stats: StatsOf) -> None:
    signals = device.see(stats(160, seed=1))
    assert [signal.sequence for signal in signals] == list(range(15, 160, 16))
    assert signals[-1].images_seen == 160
    detectors = {reading.detector for reading in signals[-1].readings}
    assert detectors == {"cusum", "mewma", "mmd", "ks", "prior", "sensor", "labels"}
    assert not any(reading.alarmed for signal in signals for reading in signal.readings)


def test_a_drift_is_signalled_as_a_level_for_as_long_as_it_lasts(device: Device, stats: StatsOf) -> None:
    device.see(stats(160, seed=1))
    drifted = device.see(stats(160, seed=2, shift=1.5, first=160))
    alarmed = [any(r.alarmed and r.layer is Layer.DATA for r in signal.readings) for signal in drifted]
    assert all(alarmed[alarmed.index(True) :])
    assert alarmed.index(True) <= 2
    assert drifted[-1].shifted_share > 0.5


def test_repeats_change_nothing(device: Device, stats: StatsOf, label: LabelOf) -> None:
    events: list[Event] = [*stats(64, seed=3), *(label(n, 0) for n in range(20))]
    device.see(events)
    before = device.state
    assert device.see(events) == []
    assert device.state == before


def test_labels_are_counted_and_signalled_every_eighth(
    device: Device, stats: StatsOf, label: LabelOf
) -> None:
    device.see(stats(64, seed=4))
    predictions = device.predictions
    signals = device.see([label(n, 1 - predictions[f"image-{n}"]) for n in range(17)])
    assert [signal.labels_seen for signal in signals] == [8, 16]
    assert (signals[-1].labels.confirmed, signals[-1].labels.errors) == (16, 16)
    assert any(r.layer is Layer.LABEL and r.statistic == "error" and r.alarmed for r in signals[-1].readings)


def test_a_label_that_comes_before_its_micro_batch_is_counted_with_it(
    device: Device, stats: StatsOf, label: LabelOf
) -> None:
    assert device.see([label(0, 0), label(1, 1)]) == []
    (signal,) = device.see(stats(16, seed=5))
    assert signal.labels.confirmed == 2
    assert not device.state.labels


def test_a_correction_is_not_counted_twice(device: Device, stats: StatsOf, label: LabelOf) -> None:
    device.see(stats(16, seed=5))
    device.see([label(0, 0)])
    device.see([label(1, 1, image=0)])
    assert device.state.panel is not None
    assert device.state.panel.labels_seen == 1


def test_a_new_version_starts_its_own_detectors(device: Device, stats: StatsOf, label: LabelOf) -> None:
    device.see(stats(160, seed=1) + stats(160, seed=2, shift=2.0, first=160))
    (signal,) = device.see(stats(16, seed=6, first=320, version="ward-2"))
    assert (signal.model_version, signal.images_seen, signal.labels_seen) == ("ward-2", 16, 0)
    assert not any(reading.alarmed for reading in signal.readings)
    device.see([label(0, 0)])
    assert device.state.panel is not None
    assert device.state.panel.labels_seen == 0


def test_what_waits_is_bounded(panel: Panel, stats: StatsOf, label: LabelOf) -> None:
    settings = DriftDetectionSettings(pending_predictions=32, pending_labels=4)
    device = Device(panel, settings)
    device.see(stats(160, seed=7))
    assert set(device.predictions) == {f"image-{n}" for n in range(128, 160)}
    device.see([label(n, 0, image=1_000 + n) for n in range(10)])
    assert len(device.state.labels) == 4


def test_the_state_survives_its_json(device: Device, stats: StatsOf, label: LabelOf) -> None:
    device.see([*stats(96, seed=8), label(0, 0), label(1, 1, image=500)])
    assert DetectionState.model_validate_json(device.state.model_dump_json()) == device.state


def test_statistics_that_the_reference_lacks_are_refused(device: Device, stats: StatsOf) -> None:
    (event,) = stats(16, seed=9)
    image = event.images[0]
    for broken, field in (
        (image.model_copy(update={"data": {}}), "intensity"),
        (image.model_copy(update={"embedding": (1.0,)}), "embedding"),
        (image.model_copy(update={"predicted_class": 9}), "predicted_class"),
        (image.model_copy(update={"probabilities": (1.0,)}), "probabilities"),
    ):
        with pytest.raises(InvalidEvent) as raised:
            device.see([event.model_copy(update={"images": (broken,)})])
        assert field in raised.value.field


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("layer", ["data", "decision", "activation", "embedding", "probabilities"])
def test_a_statistic_that_is_no_number_is_refused_by_its_field(
    device: Device, stats: StatsOf, layer: str, value: float
) -> None:
    (event,) = stats(16, seed=1)
    image = event.images[0]
    before = getattr(image, layer)
    broken = dict.fromkeys(before, value) if isinstance(before, dict) else (value, *before[1:])
    with pytest.raises(InvalidEvent, match="no finite number") as raised:
        device.see([event.model_copy(update={"images": (image.model_copy(update={layer: broken}),)})])
    assert layer in raised.value.field


def test_an_unknown_version_is_waited_for(stats: StatsOf, settings: DriftDetectionSettings) -> None:
    def unknown(version: str) -> Panel:
        raise TransientError(f"{version} is not among the releases")

    with pytest.raises(TransientError):
        step(DetectionState(device_id="device"), stats(16, seed=1)[0], settings, unknown)


def test_images_without_a_label_are_offered_while_something_is_alarmed(
    device: Device, stats: StatsOf, label: LabelOf
) -> None:
    assert all(signal.unlabelled == () for signal in device.see(stats(160, seed=1)))
    device.see([label(n, 0) for n in range(100)])
    last = device.see(stats(160, seed=2, shift=1.5, first=160))[-1]
    assert {image.predicted_class for image in last.unlabelled} == {0, 1}
    assert len({image.image_id for image in last.unlabelled}) == len(last.unlabelled)
    assert all(100 <= image.sequence < 320 for image in last.unlabelled), "no image that has its label"


def test_an_accuracy_is_expected_where_the_reference_has_margins(
    device: Device, stats: StatsOf, panel: Panel, settings: DriftDetectionSettings, reference: Reference
) -> None:
    assert device.see(stats(16, seed=1))[-1].accuracy is None
    margins = np.random.default_rng(0).random(len(reference.predicted)).astype(np.float32)
    scalars = {**reference.scalars, "decision.margin": margins}
    sighted = Device(Panel.calibrated(replace(reference, scalars=scalars), settings), settings)
    with_margins = [
        event.model_copy(
            update={
                "images": tuple(
                    image.model_copy(update={"decision": {**image.decision, "margin": 0.9}})
                    for image in event.images
                )
            }
        )
        for event in stats(32, seed=1)
    ]
    accuracy = sighted.see(with_margins)[-1].accuracy
    assert accuracy is not None
    assert accuracy.images == 32
    assert accuracy.low < accuracy.expected < accuracy.high
