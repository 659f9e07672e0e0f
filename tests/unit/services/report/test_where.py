"""Where drift is: alarms of a device, since when, and which of its images are shown beside which."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from medloop_model.statistics import Reference
from medloop_schemas import (
    DetectorReading,
    DriftSignalled,
    Frame,
    ImageAcquired,
    ImageStatistics,
    LabelConfirmed,
    Layer,
    StatsMeasured,
)
from medloop_schemas.signal import LabelEvidence
from medloop_services.report.image_examples import shifted_beside_typical
from medloop_services.report.standard_scores import EMBEDDING, MOST_DEVIATIONS, Standard, overall_distance
from medloop_services.report.trace import Trace
from medloop_services.report.where import QUIET_IMAGES, Where, locate
from medloop_services.report.where_plots import MOST_DEVICES, file_name, layer_heat
from medloop_services.report.where_section import where_section

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CHANGE = 96
IMAGES = 192
BATCH = 16


@pytest.fixture(scope="module")
def standard() -> Standard:
    random = np.random.default_rng(0)
    predicted = np.arange(400) % 2
    return Standard.of(
        Reference(
            scalars={
                "data.noise": (random.normal(size=400) + 10 * predicted).astype(np.float32),
                "decision.entropy": random.normal(size=400).astype(np.float32),
            },
            embedding=(random.normal(size=(400, 4)) + 10 * predicted[:, None]).astype(np.float32),
            probabilities=np.eye(2, dtype=np.float32)[predicted],
            labels=np.where(np.arange(400) % 20 == 0, 1 - predicted, predicted),
            studies=np.arange(400),
        )
    )


def moment(n: int) -> datetime:
    return EPOCH + timedelta(seconds=n)


def statistics(n: int, noise: float, entropy: float = 0.0) -> ImageStatistics:
    predicted = n % 2
    return ImageStatistics(
        image_id=f"i{n}",
        sequence=n,
        predicted_class=predicted,
        data={"noise": noise + 10 * predicted},
        decision={"entropy": entropy},
        activation={},
        embedding=(10.0 * predicted,) * 4,
    )


def reading(value: float, layer: Layer = Layer.DATA, statistic: str = "noise") -> DetectorReading:
    return DetectorReading(
        detector="cusum", layer=layer, statistic=statistic, value=value, threshold=1, alarmed=value > 1
    )


def image(n: int) -> ImageAcquired:
    return ImageAcquired(
        time=moment(n),
        image_id=f"i{n}",
        device_id="d",
        site_id="s",
        study_id=f"s{n}",
        sequence=n,
        frame=Frame.inline(bytes([n % 256] * 16), height=4, width=4),
    )


def signal(n: int, *readings: DetectorReading) -> DriftSignalled:
    return DriftSignalled(
        time=moment(n),
        device_id="d",
        site_id="s",
        model_version="v0",
        sequence=n,
        images_seen=n + 1,
        labels_seen=n,
        readings=readings,
        labels=LabelEvidence(confirmed=0, errors=0, expected_error=0.05, latest_sequence=n),
        shifted_share=0.0,
    )


def label(n: int, class_index: int) -> LabelConfirmed:
    return LabelConfirmed(
        time=moment(n),
        image_id=f"i{n}",
        device_id="d",
        site_id="s",
        sequence=n,
        class_index=class_index,
        class_name=("normal", "opacity")[class_index],
    )


def trace_of(
    alarmed: range, layer: Layer = Layer.DATA, statistic: str = "noise", shift: float = 4.0
) -> Trace:
    """A device whose noise rises at CHANGE, alarmed after batches that end in a range."""
    random = np.random.default_rng(1)
    trace = Trace()
    for n in range(IMAGES):
        trace.observe(image(n), 0.0)
    for first in range(0, IMAGES, BATCH):
        rows = [
            statistics(n, float(random.normal()) + shift * (n >= CHANGE), float(random.normal()))
            for n in range(first, first + BATCH)
        ]
        trace.observe(
            StatsMeasured(
                time=moment(first + BATCH - 1),
                device_id="d",
                site_id="s",
                model_version="v0",
                images=tuple(rows),
            ),
            0.0,
        )
        last = first + BATCH - 1
        trace.observe(signal(last, reading(2.0 if last in alarmed else 0.5, layer, statistic)), 0.0)
    return trace


def located(trace: Trace, standard: Standard) -> Where:
    return locate(trace, standard, "v0", {"d": CHANGE}, CHANGE)


def test_the_change_is_found_before_the_alarm_and_named(standard: Standard) -> None:
    (device,) = located(trace_of(range(110, IMAGES)), standard).devices
    (alarm,) = device.alarms
    assert (alarm.sequence, alarm.last_sequence, alarm.lasting) == (111, IMAGES - 1, True)
    assert alarm.onset is not None
    assert alarm.onset.statistic == "data.noise"
    assert alarm.onset.low <= CHANGE <= alarm.onset.high
    assert alarm.onset.position == alarm.onset.sequence
    assert alarm.onset.after - alarm.onset.before == pytest.approx(4, abs=0.8)
    assert alarm.evidence == ("data noise: cusum 2 over 1",)


def test_an_alarm_after_a_quiet_stretch_is_another_one(standard: Standard) -> None:
    trace = trace_of(range(16, 32))
    trace.observe(signal(31 + QUIET_IMAGES + 1, reading(2.0)), 0.0)
    (device,) = located(trace, standard).devices
    assert [alarm.sequence for alarm in device.alarms] == [31, 31 + QUIET_IMAGES + 1]
    assert not device.alarms[0].lasting


def test_a_quiet_device_is_listed_without_an_alarm(standard: Standard) -> None:
    where = located(trace_of(range(0)), standard)
    assert [device.alarms for device in where.devices] == [()]
    assert where.alarmed == ()
    assert shifted_beside_typical(where, where.devices[0]) == ()
    assert "None of 1 devices alarmed" in where_section(where)


def test_another_version_and_unmeasurable_images_are_left_out(standard: Standard) -> None:
    trace = trace_of(range(110, IMAGES))
    lacking = statistics(0, 0.0).model_copy(update={"data": {}})
    foreign = statistics(1, 0.0).model_copy(update={"predicted_class": 7})
    assert not standard.covers(lacking)
    assert not standard.covers(foreign)
    assert locate(trace, standard, "v1").devices == ()


def test_what_readers_overrule_dates_an_alarm_of_labels(standard: Standard) -> None:
    trace = trace_of(range(140, IMAGES), Layer.LABEL, "error", shift=0.0)
    for n in range(IMAGES):
        trace.observe(label(n, 1 - n % 2 if n >= CHANGE and n % 3 else n % 2), 0.0)
    where = located(trace, standard)
    (device,) = where.devices
    onset = device.alarms[0].onset
    assert onset is not None
    assert onset.statistic == "label.error"
    assert onset.low <= CHANGE <= onset.high
    pairs = shifted_beside_typical(where, device)
    assert all(pair.shifted.reading is not None for pair in pairs)
    assert all(pair.typical is not None and pair.typical.reading is None for pair in pairs)


def test_shifted_images_come_by_distance_beside_ones_of_the_same_answer(standard: Standard) -> None:
    where = located(trace_of(range(110, IMAGES)), standard)
    (device,) = where.devices
    pairs = shifted_beside_typical(where, device, count=8)
    distances = [pair.shifted.distance for pair in pairs]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] == overall_distance(device.scores).max()
    typical = [pair.typical for pair in pairs if pair.typical is not None]
    assert len({example.sequence for example in typical}) == 8
    for pair in pairs:
        assert pair.typical is not None
        assert pair.shifted.sequence >= CHANGE > pair.typical.sequence
        assert pair.shifted.answer == pair.typical.answer
        assert pair.shifted.pixels[0, 0] == pair.shifted.sequence


def test_scores_are_cut_and_compare_within_the_answer(standard: Standard) -> None:
    usual, far = standard.scores([statistics(1, 0.0), statistics(2, 1e6)])
    assert abs(usual[standard.names.index("data.noise")]) < 0.3
    assert far[standard.names.index("data.noise")] == MOST_DEVIATIONS
    assert standard.names[-1] == EMBEDDING
    assert standard.error_score(True) > 0 > standard.error_score(False)


def test_heat_is_the_latest_ratio_of_each_layer(standard: Standard) -> None:
    where = located(trace_of(range(110, IMAGES)), standard)
    edges, heat = layer_heat(where, where.devices[0])
    data, feature = heat[0], heat[1]
    assert edges[-1] == IMAGES
    assert np.isnan(data[edges[1:] < BATCH]).all()
    assert set(data[~np.isnan(data)]) == {0.5, 2.0}
    assert (data[edges[:-1] >= 112] == 2.0).all()
    assert np.isnan(feature).all()


def test_heat_ends_with_the_versions_last_signal(standard: Standard) -> None:
    trace = trace_of(range(110, IMAGES))
    trace.signals = {name: each for name, each in trace.signals.items() if each.sequence < 128}
    where = located(trace, standard)
    edges, heat = layer_heat(where, where.devices[0])
    assert np.isnan(heat[:, edges[:-1] >= 129]).all()
    assert heat[0, edges[:-1] < 128][-1] == 2.0


def test_only_the_devices_that_alarmed_first_are_drawn(standard: Standard) -> None:
    where = located(trace_of(range(110, IMAGES)), standard)
    many = replace(
        where, devices=tuple(replace(where.devices[0], device_id=f"d{n}") for n in range(MOST_DEVICES + 2))
    )
    section = where_section(many)
    assert section.count("<details") == MOST_DEVICES
    assert all(f"<td>d{n}</td>" in section for n in range(MOST_DEVICES + 2))


def test_the_section_shows_the_alarm_and_its_pictures(standard: Standard) -> None:
    section = where_section(located(trace_of(range(110, IMAGES)), standard))
    assert section.count("<svg") == 3
    assert "data noise: cusum 2 over 1" in section


def test_a_device_id_becomes_a_file_name() -> None:
    assert file_name("ward 3/scanner:1") == "ward-3-scanner-1"
