"""Kolmogorov-Smirnov test of every scalar: the latest images against the reference.

D = sup_x |F_window(x) − F_reference(x)|, taken at fixed quantiles of the reference.

D is also a lower bound of the share of images that must have changed: mixing a share π of anything into the
reference moves no distribution function by more than π.
"""

from __future__ import annotations

from dataclasses import dataclass

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

QUANTILES = 16


@dataclass(frozen=True)
class KolmogorovSmirnov(Detector):
    """KS on the latest images.

    Attributes:
        levels: (QUANTILES, k), scores at which the distribution functions are compared.
        reference: (QUANTILES, k), the reference's there.
        images: window length.
    """

    levels: FloatArray
    reference: FloatArray
    images: int

    @classmethod
    def fitted(cls, scalars: Channels, reference: Images, images: int) -> KolmogorovSmirnov:
        """Return one that compares with a reference.

        Args:
            scalars: names of the scores.
            reference: n images as one stream.
            images: window length.
        """
        scores = reference.scores[0]
        levels = np.quantile(scores, (np.arange(QUANTILES) + 0.5) / QUANTILES, axis=0)
        shares = (scores[:, np.newaxis] <= levels).mean(0)
        return cls("ks", scalars, uncalibrated(scalars), levels, shares, images)

    def start(self, streams: int) -> Memory:
        """Return nothing: the recent images are all it needs."""
        return {}

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return nothing."""
        return {}

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return D of each scalar."""
        if len(recent) < self.images:
            return np.zeros((len(recent.scores), len(self.thresholds)))
        window = recent.scores[:, -self.images :, np.newaxis]
        shares = (window <= self.levels).mean(1)
        distances: FloatArray = np.abs(shares - self.reference).max(1)
        return distances

    def shifted_share(self, statistics: FloatArray) -> float:
        """Return the share of the window's images that have changed, as far as one data scalar shows it."""
        data = [
            value
            for value, layer in zip(statistics, self.channels.layers, strict=True)
            if layer is Layer.DATA
        ]
        return max(data, default=0.0)

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return how many of the recent images have another mean."""
        return len(recent) - change_point(recent.scores[0, :, channel])
