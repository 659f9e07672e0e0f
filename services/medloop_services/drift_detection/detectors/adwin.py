"""ADWIN on a few scalars: the stream against its own past, without a reference (Bifet & Gavaldà 2007).

River's detector is fed the recent images anew after every micro-batch, so that a state read back decides
exactly as the one that was written. That is why only a few scalars are watched.

River's window is taken from under `river.drift`, which imports scikit-learn, pandas and SciPy for its data
sets: ten seconds of a bedside core at every start, after a kill too. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from river._river_rust.drift import AdaptiveWindowing

from medloop_services.drift_detection.detectors.change_point import change_point
from medloop_services.drift_detection.detectors.detector import (
    Channels,
    Detector,
    FloatArray,
    Images,
    Memory,
    uncalibrated,
)

IMAGES_PER_TEST = 16


@dataclass(frozen=True)
class Adwin(Detector):
    """ADWIN over the recent images.

    Attributes:
        columns: of the scores that are watched.
        delta: confidence of one scalar's test.
    """

    columns: tuple[int, ...]
    delta: float

    @classmethod
    def fitted(cls, scalars: Channels, names: Sequence[str], delta: float) -> Adwin:
        """Return one that watches the named scalars, as far as there are such."""
        columns = scalars.columns_of(names)
        channels = scalars.at(columns)
        return cls("adwin", channels, uncalibrated(channels), columns, delta)

    def start(self, streams: int) -> Memory:
        """Return nothing: the recent images are all it needs."""
        return {}

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return nothing."""
        return {}

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return the share of the recent images that ADWIN has cut off, by scalar."""
        streams = recent.scores[..., list(self.columns)].transpose(0, 2, 1).tolist()
        kept = np.array([[self._kept(scores) for scores in stream] for stream in streams])
        cut: FloatArray = 1 - kept.reshape(len(streams), len(self.columns)) / max(1, len(recent))
        return cut

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return how many of the recent images have another mean: ADWIN forgets in powers of two."""
        return len(recent) - change_point(recent.scores[0, :, self.columns[channel]])

    def _kept(self, scores: Sequence[float]) -> int:
        """Return the width of the window after the scores; as in River, a detection starts a new one."""
        window, detected = self._empty(), False
        for score in scores:
            if detected:
                window = self._empty()
            detected = window.update(score)
        return int(window.get_width())

    def _empty(self) -> AdaptiveWindowing:
        return AdaptiveWindowing(
            delta=self.delta, clock=IMAGES_PER_TEST, max_buckets=5, min_window_length=5, grace_period=10
        )
