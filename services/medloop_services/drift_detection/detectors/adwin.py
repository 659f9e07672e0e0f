"""ADWIN on the micro-batch means of every scalar: the stream against its own past (Bifet & Gavaldà 2007).

The state is the bounded list of means that River's detector is fed; the detector itself is rebuilt from it,
so that a state read back decides exactly as the one that was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from medloop_schemas import DetectorReading
from river import drift

from medloop_services.drift_detection.detectors.detector import Batch, DetectorState, Scalars


class AdwinState(DetectorState):
    """The latest micro-batches: first sequence number and mean scores of each."""

    first_sequences: tuple[int, ...] = ()
    means: tuple[tuple[float, ...], ...] = ()
    kept: tuple[int, ...] = ()
    """Of each scalar: how many of the latest means ADWIN still takes for one distribution."""


@dataclass(frozen=True)
class Adwin:
    """ADWIN over a bounded history.

    Attributes:
        scalars: what is watched.
        delta: confidence of one scalar's test.
        batches: micro-batches remembered.
    """

    scalars: Scalars
    delta: float
    batches: int
    name: str = "adwin"

    def initial(self) -> AdwinState:
        """Return an empty history."""
        return AdwinState()

    def update(self, state: AdwinState, batch: Batch) -> AdwinState:
        """Return the history with a micro-batch more."""
        mean = tuple(np.round(batch.scores.mean(0), 4).tolist())
        means = (*state.means, mean)[-self.batches :]
        return AdwinState(
            first_sequences=(*state.first_sequences, batch.sequences[0])[-self.batches :],
            means=means,
            kept=tuple(self._kept(column) for column in zip(*means, strict=True)),
        )

    def readings(self, state: AdwinState) -> Sequence[DetectorReading]:
        """Return, for each layer, the scalar of whose history most was cut off: value is that share."""
        batches = len(state.means)
        if not batches:
            return ()
        cut = 1 - np.array(state.kept) / batches
        return [
            DetectorReading(
                detector=self.name,
                layer=layer,
                statistic=self.scalars.split_names[column][1],
                value=float(cut[column]),
                threshold=0.0,
                alarmed=bool(cut[column] > 0),
                since_sequence=state.first_sequences[-state.kept[column]] if cut[column] > 0 else None,
            )
            for layer, column in self.scalars.worst_by_layer(cut).items()
        ]

    def _kept(self, means: Sequence[float]) -> int:
        detector = drift.ADWIN(  # type: ignore[no-untyped-call]
            delta=self.delta, clock=1, grace_period=5, min_window_length=3
        )
        for mean in means:
            detector.update(mean)  # type: ignore[no-untyped-call]
        return int(detector.width)
