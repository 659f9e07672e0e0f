"""Rows → what a method is worth: means over seeds, the share of the gap to the oracle, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

CONFIDENCE = 0.95

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; the interval is infinite for one seed."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float] | FloatArray) -> Estimate:
    """Return the mean of independent values and Student's interval of it, x̄ ± t·s/√n."""
    sample = np.asarray(values, np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Estimate(mean, -np.inf, np.inf)
    error = float(sample.std(ddof=1)) / len(sample) ** 0.5
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(sample) - 1)) * error
    return Estimate(mean, mean - reach, mean + reach)


def gap_share(none: FloatArray, method: FloatArray, oracle: FloatArray) -> FloatArray:
    """Return what share of the way from no adaptation to the oracle a method went, for each seed.

    Over several drifts it is the sum of the gains by the sum of the gaps: a drift that costs nothing weighs
    nothing, where a mean of shares would divide by it.

    Args:
        none, method, oracle: (seeds, drifts) accuracies.

    Returns:
        (seeds,); nan where there is no gap.
    """
    gaps = (oracle - none).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares: FloatArray = np.where(gaps > 0, (method - none).sum(axis=1) / gaps, np.nan)
    return shares


def paired_difference(ours: FloatArray, peer: FloatArray) -> Estimate:
    """Return by how much one method is ahead of another on the same drifts and seeds.

    Args:
        ours, peer: (seeds, drifts) figures.
    """
    return estimate((ours - peer).mean(axis=1))
