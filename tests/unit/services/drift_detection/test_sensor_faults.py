from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from medloop_model.statistics import Reference, data_statistics
from medloop_schemas import DetectorReading, ImageStatistics, StatsMeasured
from medloop_services.drift_detection.detectors.sensor import Sensor, SensorState
from medloop_services.replay.corruption import CORRUPTIONS, FAULTS, corrupt
from medloop_services.replay.dataset import draw_dataset
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

REFERENCE_IMAGES = 400
BATCH = 16
IMAGES = draw_dataset().train.images
STREAM = IMAGES[REFERENCE_IMAGES : REFERENCE_IMAGES + 160]


def coloured(images: Pixels) -> Pixels:
    """The same images as a stain would show them: red bright, blue dull."""
    strength = np.array([1.0, 0.6, 0.8], np.float32)
    stained: Pixels = (images[..., np.newaxis] * strength).astype(np.uint8)
    return stained


def reference_of(images: Pixels, without: str = "") -> Reference:
    statistics = data_statistics(images)
    return Reference(
        scalars={f"data.{name}": values for name, values in statistics.items() if name != without},
        embedding=np.zeros((len(images), 1), np.float32),
        probabilities=np.ones((len(images), 1), np.float32),
        labels=np.zeros(len(images), np.int64),
        studies=np.arange(len(images)),
    )


@pytest.fixture(scope="module")
def sensor() -> Sensor:
    return Sensor.of(reference_of(IMAGES[:REFERENCE_IMAGES]))


def batches(images: Pixels, first: int = 0) -> list[StatsMeasured]:
    statistics = data_statistics(images)
    rows = [
        ImageStatistics(
            image_id=f"image-{first + place}",
            sequence=first + place,
            predicted_class=0,
            data={name: float(values[place]) for name, values in statistics.items()},
            decision={},
            activation={},
            embedding=(0.0,),
        )
        for place in range(len(images))
    ]
    return [
        StatsMeasured(
            time=datetime(2026, 1, 1, tzinfo=UTC),
            device_id="device",
            site_id="site",
            model_version="ward-1",
            images=tuple(rows[start : start + BATCH]),
        )
        for start in range(0, len(rows), BATCH)
    ]


def after(sensor: Sensor, images: Pixels, state: SensorState | None = None, first: int = 0) -> SensorState:
    state = state or sensor.initial()
    for event in batches(images, first):
        state = sensor.update(state, event)
    return state


def alarmed(sensor: Sensor, state: SensorState) -> dict[str, DetectorReading]:
    return {reading.statistic: reading for reading in sensor.readings(state) if reading.alarmed}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("good", [32, 40])
def test_a_fault_alarms_within_two_micro_batches_and_says_since_when(
    sensor: Sensor, fault: str, good: int
) -> None:
    broken = corrupt(STREAM[good : good + 32 - good % BATCH], fault, 3, 0)
    state = after(sensor, np.concatenate([STREAM[:good], broken]))
    found = alarmed(sensor, state)
    assert fault in found
    assert abs((found[fault].since_sequence or 0) - good) <= BATCH


@pytest.mark.parametrize("fault", FAULTS)
def test_the_beginning_of_a_fault_is_remembered_and_its_end_noticed(sensor: Sensor, fault: str) -> None:
    state = after(sensor, np.concatenate([STREAM[:32], corrupt(STREAM[:128], fault, 3, 0)]))
    assert abs((alarmed(sensor, state)[fault].since_sequence or 0) - 32) <= BATCH
    assert alarmed(sensor, after(sensor, STREAM[:BATCH], state, first=160)) == {}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("severity", [3, 5])
def test_no_corruption_is_a_fault(sensor: Sensor, corruption: str, severity: int) -> None:
    state = sensor.initial()
    for event in batches(corrupt(STREAM, corruption, severity, 0)):
        state = sensor.update(state, event)
        assert alarmed(sensor, state) == {}


def test_good_images_are_no_fault_nor_is_a_study_shown_four_times(sensor: Sensor) -> None:
    state = sensor.initial()
    for event in batches(np.repeat(STREAM[:40], 4, axis=0)):
        state = sensor.update(state, event)
        assert alarmed(sensor, state) == {}


def test_polarity_of_colours_is_seen_by_their_shares_too() -> None:
    sensor = Sensor.of(reference_of(coloured(IMAGES[:REFERENCE_IMAGES])))
    assert sensor.polarity is not None
    assert sensor.polarity.coloured
    rows = np.array(
        [[image.data[name] for name in sensor.names] for image in batches(coloured(STREAM))[0].images]
    )
    turned = 255 - coloured(STREAM)
    expected = np.array([[image.data[name] for name in sensor.names] for image in batches(turned)[0].images])
    columns = list(sensor.polarity.columns)
    assert sensor.polarity.mirrored(rows[:, columns]) == pytest.approx(expected[:, columns], abs=0.02)
    assert set(alarmed(sensor, after(sensor, turned))) == {"inverted"}


@pytest.mark.parametrize(("scalar", "fault"), [("contrast", "black"), ("tone_p05", "inverted")])
def test_a_fault_is_not_watched_without_its_scalars(scalar: str, fault: str) -> None:
    sensor = Sensor.of(reference_of(IMAGES[:REFERENCE_IMAGES], without=scalar))
    state = after(sensor, corrupt(STREAM[:32], fault, 3, 0))
    assert fault not in {reading.statistic for reading in sensor.readings(state)}


def test_inversion_is_not_watched_by_a_handful_of_images() -> None:
    assert Sensor.of(reference_of(IMAGES[:8])).polarity is None


def test_inversion_is_not_watched_where_it_shows_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (REFERENCE_IMAGES, 28, 28), np.uint8)
    assert Sensor.of(reference_of(noise)).polarity is None


def test_a_state_read_back_decides_like_the_one_that_was_written(sensor: Sensor) -> None:
    live = after(sensor, corrupt(STREAM[:40], "frozen", 3, 0))
    rebuilt = SensorState.model_validate_json(live.model_dump_json())
    assert after(sensor, STREAM[:32], rebuilt, first=40) == after(sensor, STREAM[:32], live, first=40)


def test_its_state_stops_growing(sensor: Sensor) -> None:
    assert len(after(sensor, STREAM).model_dump_json()) < 1.1 * len(
        after(sensor, STREAM[:64]).model_dump_json()
    )
