"""What devices, clocks and readers do wrong, through the core of drift_detection."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from medloop_schemas import (
    DriftSignalled,
    Event,
    ImageStatistics,
    InvalidEvent,
    LabelConfirmed,
    StatsMeasured,
    decode,
    encode,
)
from medloop_services.drift_detection.detection import step
from medloop_services.drift_detection.panel import Panel
from medloop_services.drift_detection.settings import DriftDetectionSettings
from medloop_services.drift_detection.state import DetectionState

StatsOf = Callable[..., list[StatsMeasured]]
LabelOf = Callable[..., LabelConfirmed]


class Device:
    """One device's state, as the service keeps it."""

    def __init__(self, panel: Panel, name: str = "device") -> None:
        self.state = DetectionState(device_id=name)
        self._panel = panel
        self._settings = DriftDetectionSettings()

    def see(self, *events: Event) -> list[DriftSignalled]:
        signals: list[DriftSignalled] = []
        for event in events:
            self.state, new = step(self.state, event, self._settings, lambda _: self._panel)
            signals += new
        return signals


@pytest.fixture
def device(panel: Panel) -> Device:
    return Device(panel)


def with_first_image(event: StatsMeasured, image: ImageStatistics) -> StatsMeasured:
    return event.model_copy(update={"images": (image, *event.images[1:])})


def clocks(events: list[StatsMeasured], hours: list[int]) -> list[StatsMeasured]:
    """The same micro-batches by a clock that jumps."""
    return [
        event.model_copy(update={"time": event.time + timedelta(hours=jump)})
        for event, jump in zip(events, hours, strict=True)
    ]


# --- numbers that are none -----------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", [None, "NaN", "Infinity"])
@pytest.mark.parametrize("field", ["data", "decision", "activation", "embedding"])
def test_a_statistic_that_arrives_as_no_number_is_refused_by_its_field(
    stats: StatsOf, field: str, spelled: str | None
) -> None:
    """JSON has no word for NaN: serialisers write null, or a string, which numbers' parsers would take."""
    (event,) = stats(16, seed=1)
    record = json.loads(encode(event, "/test").value)
    values = record["images"][3][field]
    first = 0 if isinstance(values, list) else next(iter(values))
    values[first] = spelled
    with pytest.raises(InvalidEvent) as raised:
        decode(StatsMeasured, json.dumps(record).encode())
    assert raised.value.field == f"images.3.{field}.{first}"


@pytest.mark.parametrize("spelled", ["NaN", "Infinity", "-Infinity"])
def test_a_bare_nan_is_no_json_and_refuses_the_record(stats: StatsOf, spelled: str) -> None:
    (event,) = stats(16, seed=1)
    text = encode(event, "/test").value.decode()
    with pytest.raises(InvalidEvent) as raised:
        decode(StatsMeasured, text.replace(str(event.images[0].embedding[0]), spelled, 1).encode())
    assert raised.value.code == "json"


def test_a_refused_micro_batch_leaves_the_device_as_it_was(device: Device, stats: StatsOf) -> None:
    first, second, third = stats(48, seed=2)
    device.see(first)
    before = device.state
    with pytest.raises(InvalidEvent):
        device.see(with_first_image(second, second.images[0].model_copy(update={"data": {}})))
    assert device.state == before
    (signal,) = device.see(third)
    assert (signal.sequence, signal.images_seen) == (47, 32)


@pytest.mark.parametrize("width", [1, 11, 13])
def test_an_embedding_of_another_width_than_the_references_is_refused(
    device: Device, stats: StatsOf, width: int
) -> None:
    (event,) = stats(16, seed=3)
    image = event.images[0].model_copy(update={"embedding": (0.5,) * width})
    with pytest.raises(InvalidEvent, match=f"{width} values") as raised:
        device.see(event.model_copy(update={"images": (image,)}))
    assert raised.value.field == "images.embedding"


# --- devices -------------------------------------------------------------------------------------------


def one_a_day(batches: list[StatsMeasured]) -> list[StatsMeasured]:
    images = [image for batch in batches for image in batch.images]
    return [
        batches[0].model_copy(
            update={"images": (image,), "time": batches[0].time + timedelta(days=image.sequence)}
        )
        for image in images
    ]


def test_one_image_a_day_is_watched_as_any_other(device: Device, stats: StatsOf) -> None:
    usual = device.see(*one_a_day(stats(96, seed=1)))
    assert [signal.images_seen for signal in usual] == list(range(1, 97))
    assert not any(reading.alarmed for signal in usual for reading in signal.readings)
    drifted = device.see(*one_a_day(stats(96, seed=2, shift=2.0, first=96)))
    assert any(reading.alarmed for reading in drifted[-1].readings)
    assert (drifted[-1].time - usual[0].time).days == 191


def test_a_device_never_seen_before_starts_at_its_own_first_image(panel: Panel, stats: StatsOf) -> None:
    new = Device(panel, "another")
    (signal,) = new.see(*stats(16, seed=1, first=70_000))
    assert (signal.device_id, signal.sequence, signal.images_seen) == ("another", 70_015, 16)
    assert not any(reading.alarmed for reading in signal.readings)
    assert all(reading.since_sequence is None for reading in signal.readings)


def test_a_label_of_a_device_never_seen_before_waits(panel: Panel, label: LabelOf) -> None:
    new = Device(panel, "another")
    assert new.see(label(0, 1)) == []
    assert new.state.panel is None
    assert set(new.state.labels) == {"image-0"}


# --- labels --------------------------------------------------------------------------------------------


def evidence(device: Device, closing: StatsMeasured, *events: Event) -> tuple[int, int]:
    """Labels counted and errors among them after some events, as the signal of a closing batch tells."""
    signal = device.see(*events, closing)[-1]
    return signal.labels.confirmed, signal.labels.errors


@pytest.fixture
def closing(stats: StatsOf) -> StatsMeasured:
    """A micro-batch after all others."""
    return stats(16, seed=99, first=10_000)[0]


def test_labels_before_their_images_count_as_labels_after_them(
    panel: Panel, stats: StatsOf, label: LabelOf, closing: StatsMeasured
) -> None:
    images, labels = stats(64, seed=4), [label(n, n % 2) for n in range(64)]
    assert evidence(Device(panel), closing, *labels, *images) == evidence(
        Device(panel), closing, *images, *labels
    )


@examples(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_labels_in_any_order_of_their_images_all_count(
    panel: Panel, stats: StatsOf, label: LabelOf, seed: int
) -> None:
    images = list(range(48))
    random.Random(seed).shuffle(images)
    labels = [label(place, image % 2, image=image) for place, image in enumerate(images)]
    in_order = [label(place, place % 2) for place in range(48)]
    batches, closing = stats(48, seed=5), stats(16, seed=99, first=10_000)[0]
    assert evidence(Device(panel), closing, *batches, *labels) == evidence(
        Device(panel), closing, *batches, *in_order
    )


def test_images_whose_labels_never_come_hold_nothing_up(
    device: Device, stats: StatsOf, label: LabelOf, closing: StatsMeasured
) -> None:
    batches = stats(64, seed=6)
    assert (
        evidence(device, closing, *batches, *(label(place, 0, image=3 * place) for place in range(20)))[0]
        == 20
    )
    assert len(device.state.predictions) == 44 + 16


def test_a_label_that_comes_twice_counts_once(
    panel: Panel, stats: StatsOf, label: LabelOf, closing: StatsMeasured
) -> None:
    batches = stats(32, seed=7)
    once = evidence(Device(panel), closing, *batches, *(label(n, 1) for n in range(16)))
    again = [label(n, 1) for n in range(16)]
    assert evidence(Device(panel), closing, *batches, *again, *again) == once
    # Sent again under new numbers, as a reader's system does that lost its own.
    renumbered = [label(16 + n, 1, image=n) for n in range(16)]
    assert evidence(Device(panel), closing, *batches, *again, *renumbered) == once


def test_a_label_of_an_image_that_is_nowhere_is_not_counted(
    device: Device, stats: StatsOf, label: LabelOf, closing: StatsMeasured
) -> None:
    assert evidence(device, closing, *stats(32, seed=8), label(0, 1, image=5_000)) == (0, 0)


# --- clocks --------------------------------------------------------------------------------------------


@examples(max_examples=20, deadline=None)
@given(st.lists(st.integers(-100_000, 100_000), min_size=6, max_size=6))
def test_a_clock_that_jumps_back_and_forth_moves_no_detector(
    panel: Panel, stats: StatsOf, hours: list[int]
) -> None:
    batches = stats(96, seed=9)
    steady, jumping = Device(panel), Device(panel)
    usual, jumped = steady.see(*batches), jumping.see(*clocks(batches, hours))
    assert jumping.state == steady.state
    assert [signal.readings for signal in jumped] == [signal.readings for signal in usual]
    assert [signal.event_id for signal in jumped] == [signal.event_id for signal in usual]
    assert [signal.time for signal in jumped] == [event.time for event in clocks(batches, hours)]


def test_a_label_dated_before_its_image_is_counted(
    device: Device, stats: StatsOf, label: LabelOf, closing: StatsMeasured
) -> None:
    early = label(0, 1)
    early = early.model_copy(update={"time": early.time - timedelta(days=3)})
    assert evidence(device, closing, *stats(16, seed=10), early)[0] == 1
