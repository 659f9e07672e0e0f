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
from typing import Literal

import numpy as np
from medloop_schemas import DetectorReading, Layer
from numpy.typing import NDArray

from medloop_services.drift_detection.detectors.change_point import change_point
from medloop_services.drift_detection.detectors.detector import Batch, DetectorState, Scalars
from medloop_services.drift_detection.detectors.window import Window

FloatArray = NDArray[np.float64]


class KolmogorovSmirnovState(DetectorState):
    """The window, and each scalar's distance; no distances before the window is full."""

    window: Window = Window()
    distances: tuple[float, ...] = ()


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

    def initial(self) -> KolmogorovSmirnovState:
        """Return an empty window."""
        return KolmogorovSmirnovState()

    def update(self, state: KolmogorovSmirnovState, batch: Batch) -> KolmogorovSmirnovState:
        """Return the window with a micro-batch more, and its distances."""
        window = state.window.extended(batch.sequences, batch.scores, self.images)
        if len(window.rows) < self.images:
            return KolmogorovSmirnovState(window=window)
        return KolmogorovSmirnovState(window=window, distances=self._distances(np.array(window.rows)))

    def readings(self, state: KolmogorovSmirnovState) -> Sequence[DetectorReading]:
        """Return each layer's scalar that has moved furthest; nothing before the window is full."""
        if not state.distances:
            return ()
        distances = np.array(state.distances)
        return [self._reading(state, layer, c) for layer, c in self.scalars.worst_by_layer(distances).items()]

    def shifted_share(self, state: KolmogorovSmirnovState) -> float:
        """Return the share of the window's images that have changed, as far as one data scalar shows it."""
        layers_and_distances = zip(self.scalars.layers, state.distances, strict=False)
        return max((distance for layer, distance in layers_and_distances if layer is Layer.DATA), default=0.0)

    def _reading(self, state: KolmogorovSmirnovState, layer: Layer, column: int) -> DetectorReading:
        alarmed = state.distances[column] > self.threshold
        scores = np.array([row[column] for row in state.window.rows])
        return DetectorReading(
            detector=self.name,
            layer=layer,
            statistic=self.scalars.split_names[column][1],
            value=state.distances[column],
            threshold=self.threshold,
            alarmed=alarmed,
            since_sequence=state.window.sequences[change_point(scores)] if alarmed else None,
        )

    def _distances(self, window: FloatArray) -> tuple[float, ...]:
        columns = zip(np.sort(window, axis=0).T, self._sorted_reference, strict=True)
        return tuple(distance(scores, reference) for scores, reference in columns)

    @cached_property
    def _sorted_reference(self) -> FloatArray:
        return np.sort(self.reference_scores, axis=0).T.copy()


def distance(sample: FloatArray, reference: FloatArray) -> float:
    """Return D = sup |F_sample − F_reference| of two ascending samples, (w,) and (n,).

    F_sample lies highest above F_reference at one of its own steps, and deepest below just before one.
    """
    above = _share_up_to(sample, sample, "right") - _share_up_to(reference, sample, "right")
    below = _share_up_to(reference, sample, "left") - _share_up_to(sample, sample, "left")
    return float(max(above.max(), below.max()))


def _share_up_to(ascending: FloatArray, values: FloatArray, side: Literal["left", "right"]) -> FloatArray:
    shares: FloatArray = ascending.searchsorted(values, side) / len(ascending)
    return shares
