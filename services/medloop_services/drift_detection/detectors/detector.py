"""What a detector is: a frozen state of bounded size, and functions of it.

To add one: a file with a state, a class with these four members and a calibration to the false-alarm rate;
then a line in `panel.py` and one in the contract suite of the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from medloop_schemas import DetectorReading, Layer
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

FloatArray = NDArray[np.float64]


class DetectorState(BaseModel):
    """What a detector remembers: frozen, JSON, bounded."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Scalars:
    """Names (`data.noise`) and layers of the scalars, in column order."""

    names: tuple[str, ...]
    layers: tuple[Layer, ...]

    @cached_property
    def split_names(self) -> tuple[tuple[str, str], ...]:
        """`(layer, statistic)` of each column."""
        return tuple((name.split(".", 1)[0], name.split(".", 1)[1]) for name in self.names)

    def worst_by_layer(self, severity: FloatArray) -> dict[Layer, int]:
        """Return, for each layer, the column with the highest severity; the first of equals.

        Args:
            severity: (k,), comparable between columns.
        """
        worst: dict[Layer, int] = {}
        for column, layer in enumerate(self.layers):
            if layer not in worst or severity[column] > severity[worst[layer]]:
                worst[layer] = column
        return worst


@dataclass(frozen=True)
class Batch:
    """A micro-batch of B images, standardised against the reference.

    Attributes:
        sequences: the images' sequence numbers, B of them.
        scores: (B, k) standard scores of the scalars.
        features: (B, p) components of the embedding.
    """

    sequences: tuple[int, ...]
    scores: FloatArray
    features: FloatArray


S = TypeVar("S", bound=DetectorState)


class Detector(Protocol[S]):
    """Watches a device's micro-batches."""

    @property
    def name(self) -> str:
        """What readings call it."""

    def initial(self) -> S:
        """Return the state before the first image."""

    def update(self, state: S, batch: Batch) -> S:
        """Return the state after a micro-batch."""

    def readings(self, state: S) -> Sequence[DetectorReading]:
        """Return where it stands, at most one reading a layer."""
