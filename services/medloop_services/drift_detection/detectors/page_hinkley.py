"""Page-Hinkley test of a few scalars: a stream against its own mean, without a reference (Page 1954).

With x̄_t the mean of all images so far, U_t = max(0, U_{t−1} + x_t − x̄_t − δ) and
L_t = max(0, L_{t−1} − x_t + x̄_t − δ): the height of Σ (x_i − x̄_i − δ) above its minimum so far, and the depth
of Σ (x_i − x̄_i + δ) below its maximum (Hinkley 1971), as `river.drift.PageHinkley` has them with `alpha=1`.
A test compares the two; River's module is not imported, for the reason that `adwin.py` gives.

River's own `alpha=0.9999` forgets the sum but not its minimum: the sum then falls no lower than −δ / (1 − α),
where it strays from that minimum by σ / √(2 (1 − α)), 70 standard deviations, as images go on. No threshold
makes that rare. And where River starts anew after an alarm, heights stop at MOST_SUM thresholds, so that an
alarm ends soon after the mean has caught up; going back is a change like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medloop_services.drift_detection.detectors.detector import (
    Channels,
    Detector,
    FloatArray,
    Images,
    Memory,
    uncalibrated,
)

FEWEST_IMAGES = 30
"""Before so many the mean is no guide; River's `min_instances`."""

MOST_SUM = 4.0
"""In thresholds."""


@dataclass(frozen=True)
class PageHinkley(Detector):
    """Two-sided Page-Hinkley, a channel a scalar.

    Attributes:
        columns: of the scores that are watched.
        slack: δ, standard deviations.
    """

    columns: tuple[int, ...]
    slack: float

    @classmethod
    def fitted(cls, scalars: Channels, names: Sequence[str], slack: float) -> PageHinkley:
        """Return one that watches the named scalars, as far as there are such.

        Args:
            scalars: names of the scores.
            names: such as `data.noise`.
            slack: δ.
        """
        columns = scalars.columns_of(names)
        channels = scalars.at(columns)
        return cls("page-hinkley", channels, uncalibrated(channels), columns, slack)

    def start(self, streams: int) -> Memory:
        """Return no images, and heights of zero."""
        zeros = np.zeros((streams, 2, len(self.columns)))
        return {
            "seen": np.zeros((streams, 1)),
            "mean": np.zeros((streams, len(self.columns))),
            "heights": zeros,
            "images": zeros,
        }

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return the means and heights after a micro-batch, and how many images the heights have lasted."""
        scores, length = images.scores[..., list(self.columns)], len(images)
        seen = memory["seen"][:, np.newaxis] + np.arange(1, length + 1)[:, np.newaxis]  # (s, b, 1)
        sums = (memory["seen"] * memory["mean"])[:, np.newaxis] + scores.cumsum(1)
        deviations = scores - sums / seen
        walk = np.cumsum(np.stack([deviations, -deviations], 2) - self.slack, 1)  # (s, b, 2, q)
        floor = np.minimum(np.minimum.accumulate(walk, 1), -memory["heights"][:, np.newaxis])
        # The last image that brought a height to zero; before the first of the batch if none did.
        touched = np.where(walk > floor, 0, np.arange(1, length + 1)[:, np.newaxis, np.newaxis]).max(1)
        return {
            "seen": seen[:, -1],
            "mean": (sums / seen)[:, -1],
            "heights": np.minimum((walk - floor)[:, -1], MOST_SUM * self.thresholds),
            "images": np.where(touched == 0, memory["images"] + length, length - touched),
        }

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return the larger of each scalar's two heights."""
        known: FloatArray = memory["heights"].max(1) * (memory["seen"] >= FEWEST_IMAGES)
        return known

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return for how many images the larger height has been above zero."""
        side = memory["heights"][0, :, channel].argmax()
        return max(1, int(memory["images"][0, side, channel]))
