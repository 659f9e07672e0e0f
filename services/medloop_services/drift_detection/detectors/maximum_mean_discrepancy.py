"""Maximum mean discrepancy of the embedding: the latest window against the reference (Gretton et al. 2012).

MMD² = mean k(w, w′) + mean k(r, r′) − 2 mean k(w, r) over distinct pairs, unbiased (eq. 3), with a Gaussian
kernel whose width is the median distance. The threshold is the quantile over windows drawn from the reference
and compared with its rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from medloop_schemas import DetectorReading, Layer
from numpy.typing import NDArray

from medloop_services.drift_detection.detectors.change_point import change_point
from medloop_services.drift_detection.detectors.detector import Batch, DetectorState
from medloop_services.drift_detection.detectors.window import Window

FloatArray = NDArray[np.float64]

PERMUTATIONS = 4096


class DiscrepancyState(DetectorState):
    """The window, its MMD² and where it most likely began to differ; neither before the window is full."""

    window: Window = Window()
    value: float | None = None
    since: int | None = None


@dataclass(frozen=True)
class MaximumMeanDiscrepancy:
    """MMD on a sliding window.

    Attributes:
        reference: (m, p) components of the reference embeddings.
        images: window length.
        inverse_width: γ of k(x, y) = exp(−γ‖x − y‖²).
        within_reference: mean kernel value of distinct reference pairs.
        threshold: MMD² above which a window alarms.
        similarity_mean, similarity_deviation: of a reference image's mean kernel value to the others.
    """

    reference: FloatArray
    images: int
    inverse_width: float
    within_reference: float
    threshold: float
    similarity_mean: float
    similarity_deviation: float
    name: str = "mmd"

    @classmethod
    def calibrated(
        cls, reference: FloatArray, images: int, false_alarm: float, seed: int
    ) -> MaximumMeanDiscrepancy:
        """Return one whose windows alarm without a change with a given probability.

        Args:
            reference: (m, p) components of the reference embeddings; a window is at most half of them.
            images: window length.
            false_alarm: probability that one window alarms.
            seed: of the draws.
        """
        squared = _squared_distances(reference, reference)
        distinct = ~np.eye(len(reference), dtype=np.bool_)
        inverse_width = 1 / max(float(np.median(squared[distinct])), 1e-12)
        kernel = np.exp(-inverse_width * squared)
        images = min(images, len(reference) // 2)
        similarity = (kernel.sum(1) - 1) / (len(reference) - 1)
        return cls(
            reference=reference,
            images=images,
            inverse_width=inverse_width,
            within_reference=_mean_of_distinct(kernel),
            threshold=float(np.quantile(_null(kernel, images, np.random.default_rng(seed)), 1 - false_alarm)),
            similarity_mean=float(similarity.mean()),
            similarity_deviation=max(float(similarity.std()), 1e-6),
        )

    def initial(self) -> DiscrepancyState:
        """Return an empty window."""
        return DiscrepancyState()

    def update(self, state: DiscrepancyState, batch: Batch) -> DiscrepancyState:
        """Return the window with a micro-batch more, and its discrepancy."""
        window = state.window.extended(batch.sequences, batch.features, self.images)
        if len(window.rows) < self.images:
            return DiscrepancyState(window=window)
        rows = np.array(window.rows)
        to_reference = np.exp(-self.inverse_width * _squared_distances(rows, self.reference))
        within = np.exp(-self.inverse_width * _squared_distances(rows, rows))
        strangeness = (self.similarity_mean - to_reference.mean(1)) / self.similarity_deviation
        return DiscrepancyState(
            window=window,
            value=_mean_of_distinct(within) + self.within_reference - 2 * float(to_reference.mean()),
            since=window.sequences[change_point(strangeness)],
        )

    def readings(self, state: DiscrepancyState) -> Sequence[DetectorReading]:
        """Return the discrepancy; nothing before the window is full."""
        if state.value is None:
            return ()
        alarmed = state.value > self.threshold
        reading = DetectorReading(
            detector=self.name,
            layer=Layer.FEATURE,
            statistic="embedding",
            value=state.value,
            threshold=self.threshold,
            alarmed=alarmed,
            since_sequence=state.since if alarmed else None,
        )
        return (reading,)


def _squared_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    squared: FloatArray = (left**2).sum(1)[:, np.newaxis] + (right**2).sum(1) - 2 * left @ right.T
    return np.maximum(squared, 0)


def _mean_of_distinct(kernel: FloatArray) -> float:
    """Return the mean off the diagonal; the diagonal is 1 everywhere."""
    size = len(kernel)
    return float((kernel.sum() - size) / (size * (size - 1)))


def _null(kernel: FloatArray, images: int, random: np.random.Generator) -> FloatArray:
    """Return MMD² of windows drawn from the reference against what is left of it, (PERMUTATIONS,)."""
    size = len(kernel)
    order = random.random((PERMUTATIONS, size)).argsort(1)
    drawn = np.zeros((PERMUTATIONS, size))
    np.put_along_axis(drawn, order[:, :images], 1.0, axis=1)
    towards_drawn = drawn @ kernel
    drawn_drawn = (towards_drawn * drawn).sum(1)
    drawn_rest = towards_drawn.sum(1) - drawn_drawn
    rest_rest = kernel.sum() - drawn_drawn - 2 * drawn_rest
    rest = size - images
    null: FloatArray = (
        (drawn_drawn - images) / (images * (images - 1))
        + (rest_rest - rest) / (rest * (rest - 1))
        - 2 * drawn_rest / (images * rest)
    )
    return null
