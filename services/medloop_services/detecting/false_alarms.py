"""How often an alarm is false: detectors watch streams in which nothing changes, and every alarm is one.

Streams are drawn, with replacement, from images that calibration did not see. After an alarm the detectors
start afresh, so that alarms are a renewal process; their number is taken to be Poisson. Its exact interval
(Garwood 1936, "Fiducial limits for the Poisson distribution", Biometrika 28) for k alarms is

    χ²(α/2; 2k)/2  …  χ²(1 − α/2; 2k + 2)/2,    the lower one 0 where k = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from medloop_schemas import ImageStatistics, StatsMeasured
from scipy.stats import chi2

from medloop_services.detecting.stationary_streams import Index, Kind, Shares, draw_classes, draw_images
from medloop_services.drift_detection.panel import Panel

CONFIDENCE = 0.95
BATCH = 16
"""Images of a micro-batch, the services' default."""
STRETCH = 4096
"""Images drawn at once, in whole batches."""

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FalseAlarmRate:
    """Alarms counted on stationary images, with a 95 % interval of the mean number of images between two.

    Attributes:
        kind: how the stream's images depend on each other.
        alarms, images: what was counted.
        images_per_alarm: infinite where there was none.
        low, high: the interval; `high` is infinite where there was no alarm.
    """

    kind: Kind
    alarms: int
    images: int
    images_per_alarm: float
    low: float
    high: float

    def keeps(self, promised: int) -> bool:
        """Return whether the interval allows for at most one false alarm in so many images."""
        return self.high >= promised


def rate(kind: Kind, alarms: int, images: int, confidence: float = CONFIDENCE) -> FalseAlarmRate:
    """Return the rate that a count shows, with its exact Poisson interval.

    Args:
        kind: of the stream.
        alarms: counted, at least 0.
        images: in which they were counted, at least 1.
        confidence: of the interval, in (0, 1).
    """
    tail = (1 - confidence) / 2
    least = float(chi2.ppf(tail, 2 * alarms)) / 2 if alarms else 0.0
    most = float(chi2.ppf(1 - tail, 2 * alarms + 2)) / 2
    return FalseAlarmRate(
        kind=kind,
        alarms=alarms,
        images=images,
        images_per_alarm=images / alarms if alarms else math.inf,
        low=images / most,
        high=images / least if least else math.inf,
    )


def count_false_alarms(
    panel: Panel,
    pool: Sequence[ImageStatistics],
    labels: Index,
    shares: Shares,
    kind: Kind,
    *,
    images: int,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> FalseAlarmRate:
    """Have detectors watch stationary images and count their alarms.

    Args:
        panel: calibrated detectors.
        pool: held-out images, measured.
        labels: (n,) their classes, by which streams are drawn.
        shares: (c,) how often each class is shown.
        kind: how images depend on each other.
        images: how many are watched, rounded up to whole micro-batches.
        seed: of the draw.
        advance: told how many more are done.
    """
    random = np.random.default_rng(seed)
    state = panel.initial()
    alarms = sequence = 0
    while sequence < images:
        count = min(STRETCH, math.ceil((images - sequence) / BATCH) * BATCH)
        rows = draw_images(draw_classes(kind, np.tile(shares, (count, 1)), random), labels, random)
        for start in range(0, count, BATCH):
            state = panel.after_images(state, _batch(pool, rows[start : start + BATCH], sequence))
            sequence += BATCH
            advance(BATCH)
            if any(reading.alarmed for reading in panel.readings(state)):
                alarms += 1
                state = panel.initial()
    return rate(kind, alarms, sequence)


def _batch(pool: Sequence[ImageStatistics], rows: Index, first: int) -> StatsMeasured:
    images = [
        pool[row].model_copy(update={"sequence": first + place, "image_id": f"image-{first + place}"})
        for place, row in enumerate(rows)
    ]
    return StatsMeasured(
        time=EPOCH, device_id="stationary", site_id="stationary", model_version="model", images=tuple(images)
    )
