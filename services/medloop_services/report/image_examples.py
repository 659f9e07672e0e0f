"""Which images: the most shifted ones of a device, each beside a typical one that the model answered alike.

Distance is `overall_distance`, the root mean square of an image's standard scores over all statistics. Where
late labels raised the alarm, the images that readers overruled are shown, furthest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medloop_services.report.standard_scores import overall_distance
from medloop_services.report.trace import Trace
from medloop_services.report.where import LABEL_ERROR, Alarm, Device, Where, overruled

SHOWN = 5


@dataclass(frozen=True, eq=False)
class Example:
    """An image to show.

    Attributes:
        pixels: (H, W) or (H, W, 3) uint8.
        sequence: its device's count.
        answer: the model's class.
        reading: the reader's, if it is another one.
        distance: root mean square of its standard scores.
        statistic, score: the one that is furthest off, in standard deviations.
    """

    pixels: NDArray[np.uint8]
    sequence: int
    answer: str
    reading: str | None
    distance: float
    statistic: str
    score: float


@dataclass(frozen=True, eq=False)
class Pair:
    """A shifted image and a typical one of its predicted class from before the change, if there is one."""

    shifted: Example
    typical: Example | None


def shifted_beside_typical(where: Where, device: Device, count: int = SHOWN) -> tuple[Pair, ...]:
    """Return the most shifted images of a device's longest alarm beside typical ones, most shifted first.

    Typical is what lies nearest to the median distance of its class among the device's images before the
    change that no reader has overruled. Images whose pixels did not travel in the message are not shown.
    """
    alarm = device.main_alarm
    if alarm is None:
        return ()
    distance = overall_distance(device.scores)
    shown = np.array([_has_pixels(where.trace, image.image_id) for image in device.images], np.bool_)
    agreed = np.array([not overruled(where.trace, image) for image in device.images], np.bool_)
    since, before = _sides(device, alarm)
    candidates = np.flatnonzero(since & shown & ~agreed if by_readers(alarm) else since & shown)
    furthest = candidates[np.argsort(-distance[candidates], kind="stable")][:count]
    waiting = {
        answer: _most_typical(
            np.flatnonzero(before & shown & agreed & (_answers(device) == answer)), distance
        )
        for answer in np.unique(_answers(device)[furthest])
    }
    pairs = []
    for row in furthest:
        usual = waiting[_answers(device)[row]]
        typical = _example(where, device, usual.pop(0), distance) if usual else None
        pairs.append(Pair(_example(where, device, int(row), distance), typical))
    return tuple(pairs)


def _sides(device: Device, alarm: Alarm) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which images are since the change, up to the alarm's end, and which surely before, (n,) each."""
    sequences = np.array([image.sequence for image in device.images])
    start = alarm.onset.sequence if alarm.onset else alarm.sequence
    sure = alarm.onset.low if alarm.onset else alarm.sequence
    return (sequences >= start) & (sequences <= alarm.last_sequence), sequences < sure


def by_readers(alarm: Alarm) -> bool:
    """Return whether readers' labels tell since when there is an alarm."""
    return alarm.onset is not None and alarm.onset.statistic == LABEL_ERROR


def _answers(device: Device) -> NDArray[np.int64]:
    return np.array([image.predicted_class for image in device.images], np.int64)


def _most_typical(rows: NDArray[np.int64], distance: NDArray[np.float64]) -> list[int]:
    """Return rows, those nearest to their median distance first."""
    if not len(rows):
        return []
    order = np.argsort(np.abs(distance[rows] - np.median(distance[rows])), kind="stable")
    return [int(row) for row in rows[order]]


def _has_pixels(trace: Trace, image_id: str) -> bool:
    frame = trace.frames.get(image_id)
    return frame is not None and frame.data is not None


def _example(where: Where, device: Device, row: int, distance: NDArray[np.float64]) -> Example:
    image = device.images[row]
    frame = where.trace.frames[image.image_id]
    shape = (frame.height, frame.width) if frame.channels == 1 else (frame.height, frame.width, 3)
    foremost = int(np.abs(device.scores[row]).argmax())
    label = where.trace.labels.get(image.image_id)
    return Example(
        pixels=np.frombuffer(frame.pixels(), np.uint8).reshape(shape),
        sequence=image.sequence,
        answer=_class_name(_classes(where), image.predicted_class),
        reading=label.class_name if label and overruled(where.trace, image) else None,
        distance=float(distance[row]),
        statistic=device.names[foremost],
        score=float(device.scores[row, foremost]),
    )


def _classes(where: Where) -> Sequence[str]:
    releases = (each for each in where.trace.releases.values() if each.version == where.version)
    return next((release.classes for release in releases), ())


def _class_name(classes: Sequence[str], index: int) -> str:
    return classes[index] if index < len(classes) else f"class {index}"
