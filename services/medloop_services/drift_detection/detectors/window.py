"""The latest images of a stream: what the sensor's faults are seen in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class Window(BaseModel):
    """The latest images: sequence number and values of each, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequences: tuple[int, ...] = ()
    rows: tuple[tuple[float, ...], ...] = ()

    def extended(self, sequences: Sequence[int], rows: NDArray[np.float64], images: int) -> Window:
        """Return the window with more images, cut to the latest `images` of them."""
        return Window(
            sequences=(*self.sequences, *sequences)[-images:],
            rows=(*self.rows, *map(tuple, rows.tolist()))[-images:],
        )
