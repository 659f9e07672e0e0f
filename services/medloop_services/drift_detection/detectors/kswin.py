"""KSWIN of a few scalars: the newest images against a sample of the ones before (Raab et al. 2020).

Of a window of n images the newest r are R, and r of the other n − r, drawn at random, are W:
D = sup_x |F_R(x) − F_W(x)|. The paper's test is D > √(−ln α / r), so r D² is the −ln α at which it would just
alarm. That is the statistic; its threshold is calibrated.

Which places of the window W is taken from is drawn once, with a seed: what an image leads to is to be the
same after every restart. (River draws anew for every image, and has a p-value in place of D.) A change shows
only while it lies between W and R: what counts is the largest D of the last n images, so that an alarm lasts
as long as in the detectors that look at the recent images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from medloop_services.drift_detection.detectors.detector import (
    Channels,
    Detector,
    FloatArray,
    Images,
    Memory,
    uncalibrated,
)

IMAGES_PER_TEST = 4


@dataclass(frozen=True)
class Kswin(Detector):
    """KSWIN, a channel a scalar.

    Attributes:
        columns: of the scores that are watched.
        window: n, images.
        sampled: (r,), places of W in the window.
    """

    columns: tuple[int, ...]
    window: int
    sampled: NDArray[np.int64]

    @classmethod
    def fitted(cls, scalars: Channels, names: Sequence[str], window: int, newest: int, seed: int) -> Kswin:
        """Return one that watches the named scalars, as far as there are such.

        Args:
            scalars: names of the scores.
            names: such as `data.noise`.
            window: n.
            newest: r, at most half of n.
            seed: of the places of W.
        """
        columns = scalars.columns_of(names)
        channels = scalars.at(columns)
        places = np.random.default_rng(seed).permutation(window - newest)[:newest]
        return cls("kswin", channels, uncalibrated(channels), columns, window, np.sort(places))

    def start(self, streams: int) -> Memory:
        """Return an empty window."""
        nothing = np.zeros((streams, 0, len(self.columns)))
        return {"seen": np.zeros((streams, 1)), "scores": nothing, "distances": nothing}

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return the latest images' scores, and the latest distances, one every IMAGES_PER_TEST images."""
        scores = np.concatenate([memory["scores"], images.scores[..., list(self.columns)]], 1)
        seen, distances = memory["seen"] + len(images), memory["distances"]
        watched = scores[:, -(len(images) + self.window - 1) :]
        if watched.shape[1] >= self.window:
            windows = sliding_window_view(watched, self.window, axis=1)  # (s, images, q, n)
            latest = int(seen[0, 0]) % IMAGES_PER_TEST
            tested = windows[:, ::-1][:, latest::IMAGES_PER_TEST][:, ::-1]
            newest = tested[..., -len(self.sampled) :]
            distances = np.concatenate([distances, _distance(newest, tested[..., self.sampled])], 1)
        return {
            "seen": seen,
            "scores": scores[:, -self.window :],
            "distances": distances[:, -(self.window // IMAGES_PER_TEST) :],
        }

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return r D² for the largest D of the last n images."""
        largest: FloatArray = len(self.sampled) * memory["distances"].max(1, initial=0) ** 2
        return largest

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return how many images have come since the newest ones were at their farthest, and these."""
        distances = memory["distances"][0, :, channel]
        tests = len(distances) - 1 - int(distances.argmax())
        return tests * IMAGES_PER_TEST + int(memory["seen"][0, 0]) % IMAGES_PER_TEST + len(self.sampled)


def _distance(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return D of the r values on the last axis of both."""
    size = first.shape[-1]
    pooled = np.concatenate([first, second], -1)
    order = np.argsort(pooled, -1)
    difference = np.where(order < size, 1, -1).cumsum(-1)
    values = np.take_along_axis(pooled, order, -1)
    # Between equal values neither distribution function has a value: the last of them counts.
    difference[..., :-1][values[..., :-1] == values[..., 1:]] = 0
    distance: FloatArray = np.abs(difference).max(-1) / size
    return distance
