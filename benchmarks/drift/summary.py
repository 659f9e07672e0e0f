"""First alarms → what a detector is worth: delays where something changed, run lengths where nothing did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Delays:
    """How soon one condition is noticed.

    Attributes:
        streams: how many were tried.
        early: how many alarmed before the change; they count in none of the rest.
        median, p90: images between change and alarm; one more than could be seen where it was missed.
        power: share that alarmed before the stream ended.
    """

    streams: int
    early: int
    median: float
    p90: float
    power: float


@dataclass(frozen=True)
class RunLength:
    """How rare false alarms are.

    Attributes:
        streams, alarms: how many were tried, and how many alarmed.
        images: seen by all of them until they alarmed or ended.
        mean: images per alarm; infinite without one.
        low, high: its exact interval, for a Poisson number of alarms.
    """

    streams: int
    alarms: int
    images: int
    mean: float
    low: float
    high: float


def delays(first_alarms: Sequence[int | None], change: int, after: int) -> Delays:
    """Summarise one condition.

    Args:
        first_alarms: of each stream, images seen when it first alarmed, or None.
        change: images before the change.
        after: images after it.
    """
    late = [alarm for alarm in first_alarms if alarm is None or alarm > change]
    missed = after + 1
    waits = [missed if alarm is None else min(alarm - change, missed) for alarm in late]
    early = len(first_alarms) - len(late)
    if not waits:  # it alarms whatever happens: worth no more than one that never does
        return Delays(len(first_alarms), early, missed, missed, 0.0)
    return Delays(
        streams=len(first_alarms),
        early=early,
        median=float(np.median(waits)),
        # An observed value: between a delay and a miss there is nothing to interpolate.
        p90=float(np.quantile(waits, 0.9, method="inverted_cdf")),
        power=sum(wait <= after for wait in waits) / len(waits),
    )


def run_length(first_alarms: Sequence[int | None], images: int) -> RunLength:
    """Estimate the mean time between false alarms of stationary streams, censored where they end.

    Args:
        first_alarms: of each stream, images seen when it first alarmed, or None.
        images: length of a stream.
    """
    seen = sum(images if alarm is None else alarm for alarm in first_alarms)
    alarms = sum(alarm is not None for alarm in first_alarms)
    least, most = interval(alarms)
    return RunLength(
        streams=len(first_alarms),
        alarms=alarms,
        images=seen,
        mean=seen / alarms if alarms else math.inf,
        low=float(seen / most),
        high=float(seen / least) if least else math.inf,
    )


def interval(alarms: int) -> tuple[float, float]:
    """Return the exact interval of the mean of a Poisson count (Garwood 1936)."""
    tail = (1 - CONFIDENCE) / 2
    least = chi2.ppf(tail, 2 * alarms) / 2 if alarms else 0.0
    return float(least), float(chi2.ppf(1 - tail, 2 * alarms + 2) / 2)


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive values, at least one."""
    return math.exp(sum(map(math.log, values)) / len(values))
