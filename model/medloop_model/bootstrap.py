"""How sure a figure is: what it would have been had other studies come (Efron's percentile bootstrap).

Studies are drawn, not images: images of one study depend on each other, and counting each for itself would
make figures look surer than they are.

Shape suffixes: B image · D draw
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds between which most draws put it."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, drawn_D: NDArray[np.float64], confidence: float = 0.95) -> Interval:
        """The percentile interval; nan where the value is, since then no draw says anything."""
        if np.isnan(value):
            return cls(value, value, value)
        outside = (1 - confidence) / 2
        low, high = np.nanquantile(drawn_D, [outside, 1 - outside])
        return cls(value, float(low), float(high))


def study_draws(studies_B: NDArray[np.str_], seed: int, draws: int = DRAWS) -> NDArray[np.int64]:
    """How often each image occurs in each of the draws of as many studies as there are, with replacement.

    Args:
        studies_B: each image's study.
        seed: of the draws; the order of the images plays no part.
        draws: D.

    Returns:
        int64 (D, B).
    """
    names, which_B = np.unique(studies_B, return_inverse=True)
    if not len(names):
        return np.zeros((draws, 0), np.int64)
    generator = np.random.default_rng(seed)
    drawn_DS = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return drawn_DS[:, which_B].astype(np.int64)
