"""Since when: the posterior of one change of the mean in a series, and an interval that holds it.

Model: z_1 … z_n are independent and normal with one variance; the first τ have one mean, the others another.
With flat priors on both means and on log σ, and every split equally likely beforehand, integrating all three
out leaves (Smith 1975, "A Bayesian approach to inference about a change-point in a sequence of random
variables", Biometrika 62(2), for unknown means and variance)

    p(τ | z) ∝ [τ (n − τ)]^(−1/2) · RSS(τ)^(−(n − 2)/2),    1 ≤ τ ≤ n − 1,

where RSS(τ) is the sum of squares around the two means. Neighbours that resemble each other (one ward's
patients arriving together) carry less than the model believes, and the interval is then too short.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95

SMALLEST_RESIDUAL = 1e-12
"""Of the total sum of squares: a series that is exactly two levels has a residual of zero."""

TIE = 1e-9
"""Relative difference of probabilities that counts as none."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """Where a series changed.

    Attributes:
        index: the first value after the change, the posterior's median.
        low, high: the most likely splits that together hold the confidence lie within these, both included.
        before, after: means on either side of `index`.
    """

    index: int
    low: int
    high: int
    before: float
    after: float


def change_point(
    scores: ArrayLike, confidence: float = CONFIDENCE, latest: int | None = None
) -> ChangePoint | None:
    """Return where the mean of a series changed; None for fewer than two values, which can't have changed.

    A constant series says nothing: its interval is every split.

    Args:
        scores: (n,), in order.
        confidence: of the interval, in (0, 1).
        latest: the last index at which the new mean may begin, for instance where an alarm was raised.

    Raises:
        ValueError: a score is not a finite number, or they are not one series; says which.
    """
    series = _finite(scores)
    if len(series) < 2:
        return None
    posterior = split_posterior(series)
    if latest is not None:
        posterior = posterior[: max(1, latest)]
        posterior = posterior / posterior.sum()
    likely = np.argsort(-posterior, kind="stable")
    needed = min(int(np.searchsorted(np.cumsum(posterior[likely]), confidence)) + 1, len(likely))
    # A split as likely as the last one needed is held too, so that a constant series keeps every split.
    held = np.flatnonzero(posterior >= posterior[likely[needed - 1]] * (1 - TIE))
    # The median: the formula's first factor lets two odd values at an end be the mode of a vague answer.
    index = int(np.clip(np.searchsorted(np.cumsum(posterior), 0.5), held.min(), held.max())) + 1
    return ChangePoint(
        index=index,
        low=int(held.min()) + 1,
        high=int(held.max()) + 1,
        before=float(series[:index].mean()),
        after=float(series[index:].mean()),
    )


def split_posterior(scores: ArrayLike) -> FloatArray:
    """Return p(τ | z) for τ = 1 … n − 1, (n − 1,); sums to 1.

    Args:
        scores: (n,), n ≥ 2, in order.

    Raises:
        ValueError: as `change_point`.
    """
    series = _finite(scores)
    count = len(series)
    largest = float(np.abs(series).max())
    # Means and scale drop out of the formula; near 1 its sums of squares neither overflow nor cancel.
    centred = series / largest if largest > 0 else series
    centred = centred - centred.mean()
    before = np.arange(1, count)
    sums = np.cumsum(centred)[:-1]
    total = float(centred @ centred)
    # The mean is zero, so both sides' sums are ± the same: Σ(side's sum² ÷ its length) = S² n ÷ (τ (n − τ)).
    explained = sums**2 * count / (before * (count - before))
    if total <= SMALLEST_RESIDUAL * count:
        return np.full(count - 1, 1 / (count - 1))
    residual = np.maximum(total - explained, SMALLEST_RESIDUAL * total)
    logarithm = -0.5 * np.log(before * (count - before)) - 0.5 * (count - 2) * np.log(residual)
    weight = np.exp(logarithm - logarithm.max())
    posterior: FloatArray = weight / weight.sum()
    return posterior


def _finite(scores: ArrayLike) -> FloatArray:
    series = np.asarray(scores, np.float64)
    if series.ndim != 1:
        raise ValueError(f"scores of shape {series.shape} are not one series; give (n,)")
    wrong = np.flatnonzero(~np.isfinite(series))
    if len(wrong):
        raise ValueError(f"score {wrong[0]} of {len(series)} is {series[wrong[0]]}; give finite numbers")
    return series
