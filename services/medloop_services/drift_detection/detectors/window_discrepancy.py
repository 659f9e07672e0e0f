"""Maximum mean discrepancy of the embedding: the latest images against the reference (Gretton et al. 2012).

MMD² = 1/(m(m−1)) Σ_{i≠j} k(x_i, x_j) + 1/(n(n−1)) Σ_{i≠j} k(y_i, y_j) − 2/(mn) Σ_{i,j} k(x_i, y_j)  (eq. 3),

unbiased: on average zero, and often below it, if both are of one distribution. No random features stand for
the kernel. What an image has to do with the reference is worked out once, when it comes.
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
from medloop_services.drift_detection.detectors.kernel_mean import (
    KernelMean,
    gaussian,
    mean_of_pairs,
    median_distance,
)


@dataclass(frozen=True)
class WindowDiscrepancy(Detector):
    """MMD² between the latest images and the reference.

    Attributes:
        reference: its mean under the kernel.
        images: window length, m.
    """

    reference: KernelMean
    images: int

    @classmethod
    def fitted(cls, reference: Images, images: int, seed: int) -> WindowDiscrepancy:
        """Return one that compares with a reference.

        Args:
            reference: n images as one stream.
            images: window length.
            seed: of the reference images that are drawn where they are too many.
        """
        channels = Channels.single(Layer.FEATURE, "embedding")
        mean = KernelMean.of(reference.features[0], seed)
        return cls("mmd-window", channels, uncalibrated(channels), mean, images)

    def start(self, streams: int) -> Memory:
        """Return no images."""
        return {"expected": np.zeros((streams, 0))}

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return the mean kernel of each of the latest images and the reference."""
        expected = np.concatenate([memory["expected"], self.reference.expected(images.features)], 1)
        return {"expected": expected[:, -self.images :]}

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return MMD²."""
        if len(recent) < self.images:
            return np.zeros((len(recent.features), 1))
        window = recent.features[:, -self.images :]
        within = mean_of_pairs(self.reference.kernel(window, window))
        discrepancy = within + self.reference.within - 2 * memory["expected"].mean(1)
        return np.asarray(discrepancy[:, np.newaxis], np.float64)

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return how many recent images the witness function sets apart (Gretton et al. 2012, §2.3)."""
        features = recent.features[0]
        kernel = self.reference.kernel(features, features)
        np.fill_diagonal(kernel, 0)  # an image is no witness of itself
        in_window = np.arange(len(recent)) >= len(recent) - self.images
        near = kernel[:, in_window].sum(1) / np.maximum(in_window.sum() - in_window, 1)
        level = float(memory["expected"].mean()) - self.reference.within
        witness = near - self.reference.expected(features) - level
        return len(recent) - change_point(witness / max(float(witness.std()), 1e-12))

    def p_value(self, window: FloatArray, permutations: int, seed: int) -> float:
        """Return the permutation test's p-value of a window's features, (m, p), m ≥ 2.

        P(p ≤ α) ≤ α if window and reference are exchangeable, whatever their distribution (Lehmann & Romano
        2005, §15.2): it is about one window, says nothing of many, and patients of one ward are not
        exchangeable. The kernel is as wide as the median distance of both samples together, since one that
        knew which is the reference would not be.

        Args:
            window: of a stream.
            permutations: beside the one that was seen.
            seed: of the permutations.
        """
        pooled, random = np.concatenate([window, self.reference.images]), np.random.default_rng(seed)
        chosen = np.zeros((permutations + 1, len(pooled)))
        chosen[:, : len(window)] = 1
        chosen[1:] = random.permuted(chosen[1:], axis=1)
        discrepancies = _split_discrepancies(gaussian(pooled, pooled, median_distance(pooled)), chosen)
        # Equal splits may differ by rounding.
        return float((discrepancies >= discrepancies[0] - 1e-12).mean())


def _split_discrepancies(kernel: FloatArray, chosen: FloatArray) -> FloatArray:
    """Return MMD² between the images that each row of (r, N) chooses by ones and those that it leaves, (r,).

    Args:
        kernel: (N, N).
        chosen: zeros and ones, equally many ones in each row.
    """
    first, second = chosen[0].sum(), (1 - chosen[0]).sum()
    apart = kernel - np.diag(np.diag(kernel))
    to_chosen = chosen @ apart
    both = (to_chosen * chosen).sum(1)
    across = (to_chosen * (1 - chosen)).sum(1)
    neither = apart.sum() - both - 2 * across
    discrepancies: FloatArray = (
        both / (first * (first - 1)) + neither / (second * (second - 1)) - 2 * across / (first * second)
    )
    return discrepancies
