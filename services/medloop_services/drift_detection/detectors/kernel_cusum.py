"""Online kernel CUSUM of the embedding: MMD of the latest B images, for every B at once (Wei & Xie 2022).

With g(x, y) = k(x, y) − E k(x, Y) − E k(Y, y) + E k(Y, Y'), Y and Y' of the reference,

Z_B = Σ_{i≠j} g(x_i, x_j) / √(2 B (B − 1) E g(Y, Y')²)  over the latest B images,  statistic max_B Z_B.

The sum is B (B − 1) times the unbiased MMD² to the reference's distribution, and the root its standard
deviation if the images are independent and of that distribution. Wei & Xie average the MMD² to N blocks of
the reference (Scan-B, Li et al. 2019); all of the reference at once is their limit of many blocks, in which
the variance that Li et al. give becomes this one. A block that fits the change needs no window length to be
chosen for it, and says since when.

The sums of all blocks follow from those before the last image, S_B(t) = S_{B−1}(t − 1) + Σ g(x_t, x_{t−i})
over i < B: an image costs as many kernels as the largest block has images, and not their square.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from medloop_schemas import Layer

from medloop_services.drift_detection.detectors.detector import (
    Channels,
    Detector,
    FloatArray,
    Images,
    Memory,
    uncalibrated,
)
from medloop_services.drift_detection.detectors.kernel_mean import KernelMean

FEWEST_IMAGES = 8
"""Of a block: two odd neighbours, as a study of two has them, are far from normal and no drift."""

SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class KernelCusum(Detector):
    """The largest standardised MMD² of the latest images.

    Attributes:
        reference: its mean under the kernel.
        variance: E g² of two images of the reference.
        largest: block, images.
    """

    reference: KernelMean
    variance: float
    largest: int

    @classmethod
    def fitted(cls, reference: Images, largest: int, seed: int) -> KernelCusum:
        """Return one that compares with a reference.

        Args:
            reference: n images as one stream.
            largest: block, images.
            seed: of the reference images that are drawn where they are too many.
        """
        channels = Channels.single(Layer.FEATURE, "embedding")
        mean = KernelMean.of(reference.features[0], seed)
        return cls("kernel-cusum", channels, uncalibrated(channels), mean, _pair_variance(mean), largest)

    def start(self, streams: int) -> Memory:
        """Return no images."""
        return {
            "features": np.zeros((streams, 0, self.reference.images.shape[1])),
            "expected": np.zeros((streams, 0)),
            "pairs": np.zeros((streams, self.largest)),
        }

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return the latest images, E k(x, Y) of each, and Σ_{i<j} g of the latest 1, 2, … images."""
        features = np.concatenate([memory["features"], images.features], 1)
        latest = self.reference.expected(images.features)
        expected, pairs = np.concatenate([memory["expected"], latest], 1), memory["pairs"]
        kernel = self.reference.kernel(images.features, features)
        centred = _centred(kernel, latest, expected, self.reference.within)
        for index in range(len(images)):
            older = centred[:, index, : memory["features"].shape[1] + index]
            pairs = _with_an_image(pairs, older[:, : -self.largest : -1])
        return {
            "features": features[:, -self.largest :],
            "expected": expected[:, -self.largest :],
            "pairs": pairs,
        }

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return the largest Z_B."""
        if memory["features"].shape[1] < FEWEST_IMAGES:
            return np.zeros((len(memory["pairs"]), 1))
        largest: FloatArray = self.block_statistics(memory).max(1, keepdims=True)
        return largest

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return the B of the largest Z_B."""
        return FEWEST_IMAGES + int(self.block_statistics(memory)[0].argmax())

    def block_statistics(self, memory: Memory) -> FloatArray:
        """Return Z_B for B from FEWEST_IMAGES to as many images as there are, (s, ·)."""
        blocks = np.arange(FEWEST_IMAGES, memory["features"].shape[1] + 1)
        sums = 2 * memory["pairs"][:, blocks - 1]
        statistics: FloatArray = sums / np.sqrt(2 * blocks * (blocks - 1) * self.variance)
        return statistics


def _with_an_image(pairs: FloatArray, with_older: FloatArray) -> FloatArray:
    """Return the sums over the pairs of the latest 1, 2, … images, once another has come.

    Args:
        pairs: (s, largest), those before it.
        with_older: its g with each older image, the newest of them first.
    """
    added = np.zeros_like(pairs)
    added[:, 1:] = pairs[:, :-1]
    added[:, 1 : with_older.shape[1] + 1] += with_older.cumsum(1)
    return added


def _centred(kernel: FloatArray, first: FloatArray, second: FloatArray, within: float) -> FloatArray:
    """Return g of images, (…, m, n), whose E k(x, Y) are (…, m) and (…, n)."""
    centred: FloatArray = kernel - first[..., np.newaxis] - second[..., np.newaxis, :] + within
    return centred


def _pair_variance(reference: KernelMean) -> float:
    """Return the mean g² of two different images of the reference, each held against all others."""
    kernel = reference.kernel(reference.images, reference.images)
    others = (kernel.sum(1) - np.diag(kernel)) / (len(kernel) - 1)
    centred = _centred(kernel, others, others, reference.within)
    pairs = centred[~np.eye(len(kernel), dtype=np.bool_)]
    return max(float((pairs**2).mean()), SMALLEST_VARIANCE)
