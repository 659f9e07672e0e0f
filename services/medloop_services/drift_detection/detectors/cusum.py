"""Two-sided CUSUM on every scalar: small shifts that last (Page 1954).

U_t = max(0, U_{t−1} + z_t − κ),  L_t = max(0, L_{t−1} − z_t − κ);  alarm where either exceeds h.

Thresholds h are one a scalar: the scalar's own high quantile over simulated stationary streams, times one
factor for all that makes the whole panel keep the false-alarm rate. Streams are drawn from the reference, and
each is standardised as if its reference had been another sample of the same size, so that the reference's own
finiteness is paid for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from medloop_schemas import DetectorReading
from numpy.typing import NDArray

from medloop_services.drift_detection.detectors.detector import Batch, DetectorState, Scalars

FloatArray = NDArray[np.float64]

STREAMS = 256
STREAM_IMAGES = 768
USUAL_QUANTILE = 0.9
"""Of a scalar's highest sum in a stream: makes scalars with long tails comparable with the others."""

MOST_SUM = 4.0
"""In thresholds: a sum stops there, so that an alarm ends soon after its cause does."""


class CusumState(DetectorState):
    """Sums of each scalar and where they last left zero."""

    upper: tuple[float, ...]
    lower: tuple[float, ...]
    upper_since: tuple[int, ...]
    lower_since: tuple[int, ...]


@dataclass(frozen=True)
class Cusum:
    """CUSUM with a threshold a scalar.

    Attributes:
        scalars: what is watched.
        slack: κ, in standard deviations.
        thresholds: (k,).
    """

    scalars: Scalars
    slack: float
    thresholds: FloatArray
    name: str = "cusum"

    @classmethod
    def calibrated(
        cls, scalars: Scalars, reference_scores: FloatArray, slack: float, images_per_alarm: float, seed: int
    ) -> Cusum:
        """Return one that alarms once in so many stationary images, on average.

        Args:
            scalars: what is watched.
            reference_scores: (n, k) standard scores of the reference.
            slack: κ, in standard deviations.
            images_per_alarm: mean time between false alarms; run lengths are taken to be exponential.
            seed: of the simulation.
        """
        highest = _simulate(reference_scores, slack, np.random.default_rng(seed))
        usual = np.quantile(highest, USUAL_QUANTILE, axis=0)
        # A scalar that is constant on the reference (no dead channel) must not alarm at the first exception.
        usual = np.maximum(usual, max(float(np.median(usual)), slack))
        quiet_share = np.exp(-STREAM_IMAGES / images_per_alarm)
        factor = np.quantile((highest / usual).max(1), quiet_share)
        return cls(scalars, slack, usual * factor)

    def initial(self) -> CusumState:
        """Return sums of zero."""
        columns = len(self.thresholds)
        return CusumState(
            upper=(0.0,) * columns,
            lower=(0.0,) * columns,
            upper_since=(0,) * columns,
            lower_since=(0,) * columns,
        )

    def update(self, state: CusumState, batch: Batch) -> CusumState:
        """Return the sums after a micro-batch, image by image."""
        sums = np.array([state.upper, state.lower])
        since = np.array([state.upper_since, state.lower_since])
        most = MOST_SUM * self.thresholds
        for sequence, scores in zip(batch.sequences, batch.scores, strict=True):
            # A sum that stands at zero has not begun; its change starts with this image.
            since[sums == 0] = sequence
            sums = np.clip(sums + np.stack([scores, -scores]) - self.slack, 0, most)
        return CusumState(
            upper=tuple(sums[0].tolist()),
            lower=tuple(sums[1].tolist()),
            upper_since=tuple(since[0].tolist()),
            lower_since=tuple(since[1].tolist()),
        )

    def readings(self, state: CusumState) -> Sequence[DetectorReading]:
        """Return the scalar nearest to, or furthest beyond, its threshold in each layer."""
        sums = np.array([state.upper, state.lower])
        side = sums.argmax(0)
        highest = sums.max(0)
        since = np.where(side == 0, state.upper_since, state.lower_since)
        alarmed = highest > self.thresholds
        return [
            DetectorReading(
                detector=self.name,
                layer=layer,
                statistic=self.scalars.split_names[column][1],
                value=float(highest[column]),
                threshold=float(self.thresholds[column]),
                alarmed=bool(alarmed[column]),
                since_sequence=int(since[column]) if alarmed[column] else None,
            )
            for layer, column in self.scalars.worst_by_layer(highest / self.thresholds).items()
        ]


def _simulate(reference_scores: FloatArray, slack: float, random: np.random.Generator) -> FloatArray:
    """Return the highest sum of each scalar in each of many stationary streams, (STREAMS, k)."""
    images, columns = reference_scores.shape
    resampled = random.integers(0, images, (STREAMS, images))
    offset = np.stack([reference_scores[rows].mean(0) for rows in resampled])
    sums = np.zeros((2, STREAMS, columns))
    highest = np.zeros((STREAMS, columns))
    for _ in range(STREAM_IMAGES):
        scores = reference_scores[random.integers(0, images, STREAMS)] - offset
        sums[0] += scores - slack
        sums[1] -= scores + slack
        np.maximum(sums, 0, out=sums)
        np.maximum(highest, sums.max(0), out=highest)
    return highest
