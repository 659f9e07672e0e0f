"""Two-sided CUSUM on every scalar and component: small shifts that last (Page 1954).

U_t = max(0, U_{t−1} + z_t − κ − m⁺),  L_t = max(0, L_{t−1} − z_t − κ + m⁻)

m⁻ and m⁺ are the lowest and the highest mean of the score among the classes, for the statistics of the
decision layer, and 0 for the others: whatever the mix of classes is, and however long one class stays, the
sums have a negative drift (the least favourable of the null's distributions).

Within a micro-batch both recursions are solved by running minima of the cumulative sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from medloop_schemas import Layer
from numpy.typing import NDArray

from medloop_services.drift_detection.baseline import FEWEST_OF_A_CLASS
from medloop_services.drift_detection.detectors.detector import (
    Channels,
    Detector,
    FloatArray,
    Images,
    Memory,
    uncalibrated,
)

MOST_SUM = 4.0
"""In thresholds: a sum stops there, so that an alarm ends soon after its cause does."""


@dataclass(frozen=True)
class Cusum(Detector):
    """CUSUM with a threshold a channel: scalars, then components.

    Attributes:
        slack: (2, q): what is subtracted from every step upwards, and downwards; standard deviations.
    """

    slack: FloatArray

    @classmethod
    def fitted(cls, scalars: Channels, reference: Images, labels: NDArray[np.int64], slack: float) -> Cusum:
        """Return one that lets every mix of the reference's classes pass.

        Args:
            scalars: names of the scores.
            reference: n images as one stream.
            labels: (n,) their classes.
            slack: κ, standard deviations.
        """
        components = tuple(f"component{index}" for index in range(reference.features.shape[2]))
        channels = scalars.then(Channels((Layer.FEATURE,) * len(components), components))
        lowest, highest = _class_means(_scores(reference)[0], labels)
        decided = np.array([layer is Layer.DECISION for layer in channels.layers])
        allowed = np.where(decided, [highest, -lowest], 0.0)
        return cls("cusum", channels, uncalibrated(channels), slack + np.maximum(allowed, 0))

    def start(self, streams: int) -> Memory:
        """Return sums of zero, and no images since."""
        zeros = np.zeros((streams, 2, len(self.thresholds)))
        return {"sums": zeros, "images": zeros}

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return the sums after a micro-batch, and how many images they have been above zero."""
        scores = _scores(images)
        steps = np.stack([scores, -scores], 2) - self.slack
        walk = np.cumsum(steps, 1)  # (s, b, 2, q)
        floor = np.minimum(np.minimum.accumulate(walk, 1), -memory["sums"][:, np.newaxis])
        above = walk > floor
        length = walk.shape[1]
        # The last image that brought a sum to zero; before the first of the batch if none did.
        touched = np.where(above, 0, np.arange(1, length + 1)[:, np.newaxis, np.newaxis]).max(1)
        running = np.where(touched == 0, memory["images"] + length, length - touched)
        return {
            "sums": np.minimum((walk - floor)[:, -1], MOST_SUM * self.thresholds),
            "images": running,
        }

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return the higher of each channel's sums."""
        highest: FloatArray = memory["sums"].max(1)
        return highest

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return how long the higher sum has been above zero."""
        side = memory["sums"][0, :, channel].argmax()
        return max(1, int(memory["images"][0, side, channel]))


def _scores(images: Images) -> FloatArray:
    return np.concatenate([images.scores, images.features], 2)


def _class_means(scores: FloatArray, labels: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and the highest class mean of each column; of all images if every class is rare."""
    members = [labels == label for label in np.unique(labels)]
    frequent = [rows for rows in members if rows.sum() >= FEWEST_OF_A_CLASS]
    means = np.stack([scores[rows].mean(0) for rows in frequent or [np.ones(len(labels), np.bool_)]])
    return means.min(0), means.max(0)
