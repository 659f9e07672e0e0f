"""Multivariate EWMA: a shift of all layers together, each too small to be seen alone (Lowry et al. 1992).

m_t = (1 − λ) m_{t−1} + λ u_t,  T²_t = ‖m_t‖² (2 − λ) / λ (1 − (1 − λ)^{2t}),  u the whitened scores (eq. 2.4)

Whitened are the data, activation and feature layers; the decision layer follows the mix of classes. One image
counts at most MOST_DEVIATIONS in each direction, and no alarm needs the covariance to be right: the threshold
is calibrated on streams drawn from the reference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from medloop_schemas import Layer

from medloop_services.drift_detection.detectors.change_point import change_point
from medloop_services.drift_detection.detectors.detector import (
    Channels,
    Detector,
    FloatArray,
    Images,
    Memory,
    uncalibrated,
)

MOST_DEVIATIONS = 4.0
SHRINKAGE = 0.02
"""Share of the correlations that is given up, so that a small reference's covariance can be inverted."""

MOST_ALIKE = 0.5
"""A scalar that has one value in more of the reference's images (no dead channel) has no covariance."""


@dataclass(frozen=True)
class Mewma(Detector):
    """MEWMA of whitened scores.

    Attributes:
        weight: λ.
        columns: of the scores that are watched, before all components.
        centre: (v,), their means and the components'.
        whitening: (v, v).
    """

    weight: float
    columns: tuple[int, ...]
    centre: FloatArray
    whitening: FloatArray

    @classmethod
    def fitted(cls, scalars: Channels, reference: Images, weight: float) -> Mewma:
        """Return one whose covariance is the reference's.

        Args:
            scalars: names of the scores.
            reference: n images as one stream.
            weight: λ, of the latest image.
        """
        varied = [varies(scores) for scores in reference.scores[0].T]
        columns = tuple(
            column
            for column, layer in enumerate(scalars.layers)
            if layer is not Layer.DECISION and varied[column]
        )
        channels = Channels.single(Layer.FEATURE, "all_layers")
        unwhitened = cls("mewma", channels, uncalibrated(channels), weight, columns, np.zeros(1), np.eye(1))
        values = unwhitened._values(reference)[0]
        covariance = np.cov(values.T)
        covariance -= SHRINKAGE * (covariance - np.diag(np.diag(covariance)))
        variances, directions = np.linalg.eigh(covariance)
        whitening = directions / np.sqrt(np.maximum(variances, 1e-9))
        return replace(unwhitened, centre=values.mean(0), whitening=whitening)

    def start(self, streams: int) -> Memory:
        """Return averages of zero."""
        return {"average": np.zeros((streams, len(self.centre))), "images": np.zeros((streams, 1))}

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return the averages after a micro-batch."""
        kept = (1 - self.weight) ** np.arange(len(images), -1, -1)
        latest = np.einsum("b,sbv->sv", self.weight * kept[1:], self._whitened(images))
        return {
            "average": kept[0] * memory["average"] + latest,
            "images": memory["images"] + len(images),
        }

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return T²."""
        warmth = 1 - (1 - self.weight) ** (2 * memory["images"])
        variance = self.weight / (2 - self.weight) * np.maximum(warmth, self.weight)
        statistic: FloatArray = (memory["average"] ** 2).sum(1, keepdims=True) / variance
        return statistic

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return how many of the recent images lie in the direction of the average."""
        average = memory["average"][0]
        projected = self._whitened(recent)[0] @ (average / np.linalg.norm(average))
        return len(recent) - change_point(projected)

    def _whitened(self, images: Images) -> FloatArray:
        scores: FloatArray = (self._values(images) - self.centre) @ self.whitening
        return scores.clip(-MOST_DEVIATIONS, MOST_DEVIATIONS)

    def _values(self, images: Images) -> FloatArray:
        return np.concatenate([images.scores[..., list(self.columns)], images.features], 2)


def varies(scores: FloatArray) -> bool:
    """Return whether a scalar's values on the reference, (n,), are more than one and exceptions from it."""
    _, counts = np.unique(scores, return_counts=True)
    return bool(counts.max() <= MOST_ALIKE * len(scores))
