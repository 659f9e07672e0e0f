"""Maximum mean discrepancy of the embedding with exponential forgetting, on random features.

φ(x) = √(2/D) cos(Wx + b) approximates a Gaussian kernel by an inner product (Rahimi & Recht 2007, alg. 1), so
MMD between the reference and an exponentially weighted past is the distance of two mean vectors:
‖μ_t − μ_reference‖², μ_t = (1 − λ) μ_{t−1} + λ φ(x_t). Its memory is D numbers, whatever the past's length.

λ-averages start at the reference's mean, so the statistic grows from zero.
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

RANDOM_FEATURES = 64


@dataclass(frozen=True)
class OnlineDiscrepancy(Detector):
    """MMD² between the reference's embeddings and an exponentially weighted past.

    Attributes:
        weight: λ, of the latest image.
        frequencies: (p, D), W.
        phases: (D,), b.
        centre: (D,), the reference's mean.
    """

    weight: float
    frequencies: FloatArray
    phases: FloatArray
    centre: FloatArray

    @classmethod
    def fitted(cls, reference: Images, weight: float, seed: int) -> OnlineDiscrepancy:
        """Return one whose kernel is as wide as the median distance of the reference's components.

        Args:
            reference: n images as one stream.
            weight: λ.
            seed: of the random features.
        """
        random = np.random.default_rng(seed)
        features = reference.features[0]
        frequencies = random.normal(size=(features.shape[1], RANDOM_FEATURES)) / _median_distance(features)
        phases = random.uniform(0, 2 * np.pi, RANDOM_FEATURES)
        centre = _random_features(features, frequencies, phases).mean(0)
        channels = Channels.single(Layer.FEATURE, "embedding")
        return cls("mmd", channels, uncalibrated(channels), weight, frequencies, phases, centre)

    def start(self, streams: int) -> Memory:
        """Return the reference's mean."""
        return {"mean": np.tile(self.centre, (streams, 1))}

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return the average after a micro-batch."""
        kept = (1 - self.weight) ** np.arange(len(images), -1, -1)
        mapped = _random_features(images.features, self.frequencies, self.phases)
        latest = np.einsum("b,sbd->sd", self.weight * kept[1:], mapped)
        return {"mean": kept[0] * memory["mean"] + latest}

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return MMD²."""
        statistic: FloatArray = ((memory["mean"] - self.centre) ** 2).sum(1, keepdims=True)
        return statistic

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return how many recent images the witness function sets apart (Gretton et al. 2012, §2.3)."""
        mapped = _random_features(recent.features[0], self.frequencies, self.phases) - self.centre
        witness = mapped @ (memory["mean"][0] - self.centre)
        return len(recent) - change_point(witness / max(float(witness.std()), 1e-12))


def _random_features(features: FloatArray, frequencies: FloatArray, phases: FloatArray) -> FloatArray:
    mapped: FloatArray = np.sqrt(2 / len(phases)) * np.cos(features @ frequencies + phases)
    return mapped


def _median_distance(features: FloatArray) -> float:
    half = len(features) // 2
    between = features[:half] - features[half : 2 * half]
    return max(float(np.median(np.linalg.norm(between, axis=1))), 1e-6)
