"""Where drift is: which devices alarmed, when, on what, and since when they had changed.

An alarm lasts from the first signal with an alarmed reading until the device has been quiet for some images.
Its change point is looked for in the alarmed statistic that moved most, among the images around the alarm.

Sequences count a device's images, positions those of the whole stream.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from medloop_schemas import DetectorReading, DriftSignalled, ImageStatistics, Layer
from numpy.typing import NDArray

from medloop_services.report.change_point import ChangePoint, change_point
from medloop_services.report.standard_scores import EMBEDDING, Standard
from medloop_services.report.trace import Trace

FloatArray = NDArray[np.float64]

LABEL_ERROR = "label.error"

QUIET_IMAGES = 64
"""Of a device without an alarmed reading: then its alarm is over."""

YES_OR_NO = 2.0
"""How far an alarm counts as being over its threshold that has none, such as a label of an unknown class."""

BEFORE_ALARM, AFTER_ALARM = 512, 64
"""Images of a device in which the change point of an alarm is looked for."""


@dataclass(frozen=True, slots=True)
class Onset:
    """Since when: the first changed image with its 95 % interval, in a device's sequence and in positions."""

    statistic: str
    sequence: int
    low: int
    high: int
    position: int
    position_low: int
    position_high: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm of a device, from its first alarmed signal to its last.

    Attributes:
        sequence, position: last image measured, and images of the stream taken, when it was raised.
        last_sequence: when it last stood.
        readings: those that were alarmed when it was raised, furthest over its threshold first.
        onset: estimated first changed image; None where nothing can be compared.
        lasting: whether it stood when the trace ended.
    """

    sequence: int
    position: int
    last_sequence: int
    readings: tuple[DetectorReading, ...]
    onset: Onset | None
    lasting: bool

    @property
    def evidence(self) -> tuple[str, ...]:
        """One sentence an alarmed reading."""
        return tuple(
            f"{each.layer.value} {each.statistic}: {each.detector} {each.value:.3g} over {each.threshold:.3g}"
            for each in self.readings
        )


@dataclass(frozen=True, eq=False)
class Device:
    """What one device's images and detectors did under one model version.

    Attributes:
        device_id: of the device.
        images: those that can be scored, by sequence.
        names: columns of the scores.
        scores: (n, k).
        signals: by sequence and labels seen.
        alarms: in order.
        known: sequence of the first changed image, where that is known.
    """

    device_id: str
    images: tuple[ImageStatistics, ...]
    names: tuple[str, ...]
    scores: FloatArray
    signals: tuple[DriftSignalled, ...]
    alarms: tuple[Alarm, ...]
    known: int | None

    @property
    def main_alarm(self) -> Alarm | None:
        """The alarm that stood longest."""
        return max(self.alarms, key=lambda alarm: alarm.last_sequence - alarm.sequence, default=None)


@dataclass(frozen=True, eq=False)
class Where:
    """All devices, those that alarmed first in front, and the trace that they are read off."""

    devices: tuple[Device, ...]
    trace: Trace
    version: str
    known_position: int | None

    @property
    def alarmed(self) -> tuple[Device, ...]:
        """The devices that raised an alarm."""
        return tuple(device for device in self.devices if device.alarms)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the devices with plain values; sequences count a device's images, positions the stream's."""
        return [
            {
                "device": device.device_id,
                "images": len(device.images),
                "changed_at_sequence": device.known,
                "alarms": [_alarm_as_json(alarm) for alarm in device.alarms],
            }
            for device in self.devices
        ]


def locate(
    trace: Trace,
    standard: Standard,
    version: str,
    known: Mapping[str, int] | None = None,
    known_position: int | None = None,
) -> Where:
    """Read off a trace where drift is, as long as one model version served.

    Args:
        trace: of the stream.
        standard: of the version.
        version: of the model.
        known: device → sequence of its first changed image, where the stream was made to change.
        known_position: images of the whole stream before that change.
    """
    images: dict[str, dict[int, ImageStatistics]] = {}
    for event in trace.stats.values():
        if event.model_version == version:
            rows = images.setdefault(event.device_id, {})
            for image in event.images:
                if image.image_id in trace.images and standard.covers(image):
                    rows[image.sequence] = image
    signals: dict[str, list[DriftSignalled]] = {}
    for signal in trace.signals.values():
        if signal.model_version == version:
            signals.setdefault(signal.device_id, []).append(signal)
    devices = []
    for device_id, rows in images.items():
        seen = _Seen.of(trace, standard, [rows[sequence] for sequence in sorted(rows)])
        course = sorted(signals.get(device_id, ()), key=lambda signal: (signal.sequence, signal.labels_seen))
        devices.append(
            Device(
                device_id=device_id,
                images=seen.images,
                names=standard.names,
                scores=seen.scores,
                signals=tuple(course),
                alarms=_alarms(seen, course),
                known=(known or {}).get(device_id),
            )
        )
    devices.sort(
        key=lambda one: (one.alarms[0].position if one.alarms else len(trace.times) + 1, one.device_id)
    )
    return Where(tuple(devices), trace, version, known_position)


def _alarms(seen: _Seen, signals: Sequence[DriftSignalled]) -> tuple[Alarm, ...]:
    alarms = []
    start = 0
    for stretch in _alarmed_stretches(signals):
        onset = seen.onset(stretch[0], start)
        alarms.append(_alarm(seen.trace, stretch, onset, signals[-1].sequence))
        start = bisect_right(seen.images, stretch[-1].sequence, key=lambda image: image.sequence)
    return tuple(alarms)


def _alarmed_stretches(signals: Sequence[DriftSignalled]) -> list[list[DriftSignalled]]:
    """Return the alarmed signals, those of one alarm together."""
    stretches: list[list[DriftSignalled]] = []
    for signal in signals:
        if any(reading.alarmed for reading in signal.readings):
            if not stretches or signal.sequence - stretches[-1][-1].sequence > QUIET_IMAGES:
                stretches.append([])
            stretches[-1].append(signal)
    return stretches


def _alarm(trace: Trace, stretch: Sequence[DriftSignalled], onset: Onset | None, end: int) -> Alarm:
    first, last = stretch[0], stretch[-1]
    readings = [reading for reading in first.readings if reading.alarmed]
    return Alarm(
        sequence=first.sequence,
        position=trace.position(first.time),
        last_sequence=last.sequence,
        readings=tuple(sorted(readings, key=ratio, reverse=True)),
        onset=onset,
        lasting=end - last.sequence <= QUIET_IMAGES,
    )


def ratio(reading: DetectorReading) -> float:
    """Return how far a reading is: 1 is its threshold; YES_OR_NO for an alarm that has no threshold."""
    if reading.threshold > 0:
        return reading.value / reading.threshold
    return YES_OR_NO if reading.alarmed else 0.0


@dataclass(frozen=True, eq=False)
class _Seen:
    """The n images of one device that can be scored, in order, and their scores, (n, k)."""

    trace: Trace
    standard: Standard
    images: tuple[ImageStatistics, ...]
    scores: FloatArray

    @classmethod
    def of(cls, trace: Trace, standard: Standard, images: Sequence[ImageStatistics]) -> _Seen:
        return cls(trace, standard, tuple(images), standard.scores(images))

    def onset(self, raised: DriftSignalled, start: int) -> Onset | None:
        """Return the change point of the alarmed statistic that moved most; None where none has a course.

        Args:
            raised: the first signal of an alarm.
            start: index of the first image that may be looked at.
        """
        found: list[tuple[float, Onset]] = []
        for name in sorted({_column(reading) for reading in raised.readings if reading.alarmed}):
            rows, values = self._course(name)
            latest = raised.labels.latest_sequence if name == LABEL_ERROR else None
            reached = raised.sequence if latest is None else latest
            upto = bisect_right(rows, reached, key=lambda row: self.images[row].sequence)
            first = max(bisect_right(rows, start - 1), upto - BEFORE_ALARM)
            rows, values = rows[first : upto + AFTER_ALARM], values[first : upto + AFTER_ALARM]
            change = change_point(values, latest=upto - first - 1)
            if change is not None:
                weight = np.sqrt(change.index * (len(rows) - change.index) / len(rows))
                moved = float(abs(change.after - change.before) * weight)
                found.append((moved, self._onset_at(rows, name, change)))
        return max(found, key=lambda each: each[0], default=(0.0, None))[1]

    def _course(self, name: str) -> tuple[list[int], list[float]]:
        """Return the rows of the images that have a score, and it."""
        if name == LABEL_ERROR:
            rows = [row for row, image in enumerate(self.images) if image.image_id in self.trace.labels]
            return rows, [self.standard.error_score(overruled(self.trace, self.images[row])) for row in rows]
        if name not in self.standard.names:
            return [], []
        return list(range(len(self.images))), self.scores[:, self.standard.names.index(name)].tolist()

    def _onset_at(self, rows: Sequence[int], name: str, change: ChangePoint) -> Onset:
        found, low, high = (self.images[rows[index]] for index in (change.index, change.low, change.high))
        return Onset(
            statistic=name,
            sequence=found.sequence,
            low=low.sequence,
            high=high.sequence,
            position=taken_before(self.trace, found),
            position_low=taken_before(self.trace, low),
            position_high=taken_before(self.trace, high),
            before=change.before,
            after=change.after,
        )


def taken_before(trace: Trace, image: ImageStatistics) -> int:
    """Return how many images of the whole stream were taken before one."""
    return trace.position(trace.images[image.image_id]) - 1


def _column(reading: DetectorReading) -> str:
    """Return the score whose course shows what a reading saw."""
    match reading.layer:
        case Layer.LABEL:
            return LABEL_ERROR
        case Layer.FEATURE:
            return EMBEDDING
        case layer:
            return f"{layer.value}.{reading.statistic}"


def overruled(trace: Trace, image: ImageStatistics) -> bool:
    """Return whether a reader has called an image something else than the model."""
    label = trace.labels.get(image.image_id)
    return label is not None and label.class_index != image.predicted_class


def _alarm_as_json(alarm: Alarm) -> dict[str, Any]:
    return {
        "alarm_at_sequence": alarm.sequence,
        "alarm_at_image": alarm.position,
        "last_alarmed_sequence": alarm.last_sequence,
        "lasting": alarm.lasting,
        "changed_since": asdict(alarm.onset) if alarm.onset else None,
        "evidence": list(alarm.evidence),
        "readings": [reading.model_dump(mode="json") for reading in alarm.readings],
    }
