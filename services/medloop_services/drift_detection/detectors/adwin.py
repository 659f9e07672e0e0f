"""ADWIN on a few scalars: the stream against its own past, without a reference (Bifet & Gavaldà 2007).

The state is the bounded list of scores that River's detector is fed; the detector itself is rebuilt from it,
so that a state read back decides exactly as the one that was written. That is why only a few are watched.

River's window is taken from under `river.drift`, which imports scikit-learn, pandas and SciPy for its data
sets: ten seconds of a bedside core at every start, after a kill too. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from medloop_schemas import DetectorReading, Layer
from river._river_rust.drift import AdaptiveWindowing

from medloop_services.drift_detection.detectors.change_point import change_point
from medloop_services.drift_detection.detectors.detector import Batch, DetectorState, Scalars
from medloop_services.drift_detection.detectors.window import Window

IMAGES_PER_TEST = 16


class AdwinState(DetectorState):
    """The latest images' scores, and how many of them ADWIN takes for one distribution, by scalar."""

    window: Window = Window()
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class Adwin:
    """ADWIN over a bounded history.

    Attributes:
        scalars: what is watched.
        columns: their places in a batch's scores.
        delta: confidence of one scalar's test.
        images: length of the history.
    """

    scalars: Scalars
    columns: tuple[int, ...]
    delta: float
    images: int
    name: str = "adwin"

    @classmethod
    def watching(cls, names: Sequence[str], scalars: Scalars, delta: float, images: int) -> Adwin:
        """Return one that watches the named scalars, as far as there are such."""
        columns = tuple(column for column, name in enumerate(scalars.names) if name in names)
        watched = Scalars(
            tuple(scalars.names[column] for column in columns),
            tuple(scalars.layers[column] for column in columns),
        )
        return cls(watched, columns, delta, images)

    def initial(self) -> AdwinState:
        """Return an empty history."""
        return AdwinState()

    def update(self, state: AdwinState, batch: Batch) -> AdwinState:
        """Return the history with a micro-batch more, and what ADWIN keeps of it."""
        window = state.window.extended(batch.sequences, batch.scores[:, self.columns], self.images)
        return AdwinState(
            window=window, kept=tuple(self._kept(scores) for scores in zip(*window.rows, strict=True))
        )

    def readings(self, state: AdwinState) -> Sequence[DetectorReading]:
        """Return, for each layer, the scalar of whose history most was cut off: value is that share."""
        if not state.kept:
            return ()
        cut = 1 - np.array(state.kept) / len(state.window.rows)
        return [
            self._reading(state, layer, c, cut[c]) for layer, c in self.scalars.worst_by_layer(cut).items()
        ]

    def _reading(self, state: AdwinState, layer: Layer, column: int, cut: float) -> DetectorReading:
        # ADWIN forgets in powers of two, too coarsely to say where the change began.
        scores = np.array([row[column] for row in state.window.rows])
        return DetectorReading(
            detector=self.name,
            layer=layer,
            statistic=self.scalars.split_names[column][1],
            value=float(cut),
            threshold=0.0,
            alarmed=bool(cut > 0),
            since_sequence=state.window.sequences[change_point(scores)] if cut > 0 else None,
        )

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
