"""A Gaussian kernel, and the mean of a reference under it.

k(x, y) = exp(−‖x − y‖² / (2 σ²)), σ the median distance of the reference's images (the median heuristic,
Gretton et al. 2012, §8). The reference enters a discrepancy by two means only, E k(x, Y) and E k(Y, Y').
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medloop_services.drift_detection.detectors.detector import FloatArray

REFERENCE_IMAGES = 512
"""Of a larger reference as many are drawn: every image that comes is compared with each."""

SMALLEST_WIDTH = 1e-6


@dataclass(frozen=True)
class KernelMean:
    """The mean of a reference under a Gaussian kernel.

    Shapes: n reference images, m images, p components.

    Attributes:
        images: (n, p).
        width: σ.
        within: mean k of two different images of the reference.
    """

    images: FloatArray
    width: float
    within: float

    @classmethod
    def of(cls, features: FloatArray, seed: int) -> KernelMean:
        """Return that of a reference's features, (n, p), n ≥ 2.

        Args:
            features: all that there are.
            seed: of the draw, where they are too many.
        """
        drawn = np.random.default_rng(seed).permutation(len(features))[:REFERENCE_IMAGES]
        images = features[np.sort(drawn)]
        width = median_distance(images)
        return cls(images, width, float(mean_of_pairs(gaussian(images, images, width))))

    def kernel(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Return k of (…, m, p) and (…, n, p): (…, m, n)."""
        return gaussian(first, second, self.width)

    def expected(self, features: FloatArray) -> FloatArray:
        """Return (…, m), the mean k of each of (…, m, p) and the reference's images."""
        means: FloatArray = self.kernel(features, self.images).mean(-1)
        return means


def gaussian(first: FloatArray, second: FloatArray, width: float) -> FloatArray:
    """Return the Gaussian kernel of (…, m, p) and (…, n, p): (…, m, n)."""
    kernel: FloatArray = np.exp(_squared_distances(first, second) / (-2 * width**2))
    return kernel


def median_distance(images: FloatArray) -> float:
    """Return the median distance of two different images of (n, p)."""
    distances = np.sqrt(_squared_distances(images, images)[np.triu_indices(len(images), 1)])
    return max(float(np.median(distances)), SMALLEST_WIDTH)


def mean_of_pairs(kernel: FloatArray) -> FloatArray:
    """Return the mean of (…, m, m) off the diagonal, (…)."""
    images = kernel.shape[-1]
    total = kernel.sum((-2, -1)) - np.trace(kernel, axis1=-2, axis2=-1)
    mean: FloatArray = total / (images * (images - 1))
    return mean


def _squared_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    products = first @ np.swapaxes(second, -1, -2)
    squares = (first**2).sum(-1)[..., :, np.newaxis] + (second**2).sum(-1)[..., np.newaxis, :]
    distances: FloatArray = np.maximum(squares - 2 * products, 0)
    return distances
