"""Where in a window a change most likely began."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def change_point(scores: NDArray[np.float64]) -> int:
    """Return the index of the first changed value, given that the tail has changed.

    Maximum likelihood for independent N(0, 1) scores whose mean changes at an unknown place to an unknown
    value: the split s that maximises (Σ_{i≥s} x_i)² / (n − s) (Hinkley 1970, §2, known mean before).

    Args:
        scores: (n,), n ≥ 1, standard scores in time order.
    """
    tail_sums = np.cumsum(scores[::-1])[::-1]
    lengths = np.arange(len(scores), 0, -1)
    return int(np.argmax(tail_sums**2 / lengths))
