"""Two-sample Kolmogorov-Smirnov test of every scalar: the latest window against the reference.

D = sup_x |F_window(x) − F_reference(x)|. The threshold is the closed form of its tail (Massart 1990, with
n·m/(n+m) for two samples), Bonferroni over scalars; ties and overlapping windows make it conservative.

D is also a lower bound of the share of images that must have changed: mixing a share π of anything into the
reference moves no distribution function by more than π.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from medloop_schemas import DetectorReading, Layer
from numpy.typing import NDArray

from medloop_services.drift_detection.detectors.change_point import change_point
from medloop_services.drift_detection.detectors.detector import Batch, DetectorState, Scalars

FloatArray = NDArray[np.float64]


class WindowState(DetectorState):
    """The latest images: sequence number and values of each, in order."""

    sequences: tuple[int, ...] = ()
    rows: tuple[tuple[float, ...], ...] = ()

    def extended(self, sequences: Sequence[int], rows: FloatArray, images: int) -> WindowState:
        """Return the window with more images, cut to the latest `images` of them."""
        return WindowState(
            sequences=(*self.sequences, *sequences)[-images:],
            rows=(*self.rows, *map(tuple, rows.tolist()))[-images:],
        )


@dataclass(frozen=True)
class KolmogorovSmirnov:
    """KS on a sliding window.

    Attributes:
        scalars: what is watched.
        reference_scores: (n, k).
        images: window length.
        false_alarm: probability that one window alarms without a change, all scalars together.
    """

    scalars: Scalars
    reference_scores: FloatArray
    images: int
    false_alarm: float
    name: str = "ks"

    @cached_property
    def threshold(self) -> float:
        """The distance D above which a full window alarms."""
        reference = len(self.reference_scores)
        effective = reference * self.images / (reference + self.images)
        tail = self.false_alarm / len(self.scalars.names)
        return float(np.sqrt(-np.log(tail / 2) / (2 * effective)))

    def initial(self) -> WindowState:
        """Return an empty window."""
        return WindowState()

    def update(self, state: WindowState, batch: Batch) -> WindowState:
        """Return the window with a micro-batch more."""
        return state.extended(batch.sequences, batch.scores, self.images)

    def readings(self, state: WindowState) -> Sequence[DetectorReading]:
        """Return each layer's scalar that has moved furthest; nothing before the window is full."""
        if len(state.rows) < self.images:
            return ()
        window = np.array(state.rows)
        distances = self.distances(window)
        return [
            DetectorReading(
                detector=self.name,
                layer=layer,
                statistic=self.scalars.split_names[column][1],
                value=float(distances[column]),
                threshold=self.threshold,
                alarmed=bool(distances[column] > self.threshold),
                since_sequence=state.sequences[change_point(window[:, column])]
                if distances[column] > self.threshold
                else None,
            )
            for layer, column in self.scalars.worst_by_layer(distances).items()
        ]

    def distances(self, window: FloatArray) -> FloatArray:
        """Return D of each scalar, (k,), for a window (w, k)."""
        return np.array(
            [
                _distance(np.sort(scores), reference)
                for scores, reference in zip(window.T, self._sorted_reference, strict=True)
            ]
        )

    def shifted_share(self, state: WindowState) -> float:
        """Return the share of the window's images that have changed, as far as one data scalar shows it."""
        if len(state.rows) < self.images:
            return 0.0
        data = [column for column, layer in enumerate(self.scalars.layers) if layer is Layer.DATA]
        distance = self.distances(np.array(state.rows))[data].max(initial=0.0)
        return float(distance)

    @cached_property
    def _sorted_reference(self) -> FloatArray:
        return np.sort(self.reference_scores, axis=0).T.copy()


def _distance(window: FloatArray, reference: FloatArray) -> float:
    """Return sup |F_window − F_reference| of two sorted samples."""
    values = np.concatenate([window, reference])
    of_window = np.searchsorted(window, values, side="right") / len(window)
    of_reference = np.searchsorted(reference, values, side="right") / len(reference)
    return float(np.abs(of_window - of_reference).max())
