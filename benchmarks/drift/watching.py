"""What a detector is, the streams that it watches, and when it first alarms on one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from conditions import CLEAN, Condition
from measured import Index, Measured
from streams import Kind, Shares, draw_classes, draw_images

BATCH = 16
"""Images of a micro-batch, the services' default."""


class Watcher(Protocol):
    """Anything that may alarm."""

    def reset(self) -> None:
        """Forget every image."""

    def update(self, rows: Measured) -> bool:
        """See a micro-batch; return whether it alarms."""


@dataclass(frozen=True)
class Contender:
    """A detector under its name.

    Attributes:
        name: of the column.
        watcher: the detector.
        share: of the streams that it is shown: slow ones get fewer.
    """

    name: str
    watcher: Watcher
    share: float = 1.0

    def streams(self, count: int) -> int:
        """Return how many of so many streams it is shown."""
        return max(1, round(self.share * count))


def first_alarm(watcher: Watcher, stream: Measured, batch: int = BATCH) -> int | None:
    """Return how many images of a stream had been seen when it first alarmed; None if it never did."""
    watcher.reset()
    for start in range(0, len(stream), batch):
        end = min(start + batch, len(stream))
        if watcher.update(stream.take(slice(start, end))):
            return end
    return None


def earliest(first_alarms: Sequence[int | None]) -> int | None:
    """Return when the first of several detectors alarmed on one stream; None if none did."""
    return min((alarm for alarm in first_alarms if alarm is not None), default=None)


def changing(
    pools: Mapping[str, Measured],
    condition: Condition,
    kind: Kind,
    *,
    clean: int,
    after: int,
    random: np.random.Generator,
) -> Measured:
    """Draw a stream of clean images that then changes.

    Args:
        pools: by name.
        condition: the change.
        kind: how images depend on each other, across the change too.
        clean, after: images before and after it.
        random: the source.
    """
    width = max(len(condition.before), len(condition.after))
    shares = np.zeros((clean + after, width))
    shares[:clean, : len(condition.before)] = condition.before
    shares[clean:, : len(condition.after)] = condition.after
    classes = draw_classes(kind, shares, random)
    before = _drawn(pools[CLEAN], classes[:clean], random)
    return before.then(_drawn(pools[condition.pool], classes[clean:], random))


def stationary(
    pool: Measured, shares: Shares, kind: Kind, images: int, random: np.random.Generator
) -> Measured:
    """Draw a stream in which nothing changes.

    Args:
        pool: what it is drawn from.
        shares: (c,) of its classes.
        kind: how images depend on each other.
        images: its length.
        random: the source.
    """
    return _drawn(pool, draw_classes(kind, np.tile(shares, (images, 1)), random), random)


def _drawn(pool: Measured, classes: Index, random: np.random.Generator) -> Measured:
    return pool.take(draw_images(classes, pool.labels, random))
