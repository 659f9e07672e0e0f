"""How often the model is right on recent images, estimated before any label comes.

An image of margin m is right with (1 + m) / 2 if two classes are left and the model is calibrated. How far
it is not is read off the reference, whose images are sorted by margin into bins of equal size: each bin's
share of right answers less its mean (1 + m) / 2 corrects the images that fall into it (histogram binning,
Zadrozny & Elkan 2001). The mean over the recent images is their estimated accuracy: average confidence, of
which Garg et al. 2022 ("Leveraging unlabeled data to predict out-of-distribution performance") compare
kinds. It holds as long as a margin means what it did: roughly under a shift of the inputs or the patients,
not at all under a new reading policy, which only labels can show.

The interval covers the share of right answers among these very images: it adds up their own luck
(Poisson-binomial) and what a bin of finitely many reference images leaves open, and is Wilson's (1927) at as
many images as would have that variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from medloop_model.statistics import Reference
from medloop_schemas import AccuracyEstimate
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

FloatArray = NDArray[np.float64]

MARGIN = "margin"
BINS = 10
LEAST_RATE = 0.02
DIGITS = 4
IMAGES = 128
"""The latest images that are estimated."""

DEVIATIONS = 1.96
"""Of a normal distribution, on either side of 95 %."""


class AccuracyState(BaseModel):
    """The latest images' margins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    margins: tuple[float, ...] = ()


@dataclass(frozen=True)
class ExpectedAccuracy:
    """How right the model is at each margin.

    Shapes: b bins.

    Attributes:
        edges: (b − 1,) margins between the bins, ascending.
        correction: (b,) share of right answers, one image of the overall share added, less mean confidence.
        variance: (b,) of that share, as the reference leaves it.
    """

    edges: FloatArray
    correction: FloatArray
    variance: FloatArray

    @classmethod
    def of(cls, reference: Reference) -> ExpectedAccuracy | None:
        """Return a reference's, or None if it has no margins."""
        found = reference.scalars.get(f"decision.{MARGIN}")
        if found is None:
            return None
        margins = found.astype(np.float64)
        edges = np.unique(np.quantile(margins, np.arange(1, BINS) / BINS))
        bins = np.searchsorted(edges, margins, side="right")
        images = np.bincount(bins, minlength=len(edges) + 1)
        wrong = np.bincount(bins[reference.wrong], minlength=len(edges) + 1)
        right = (images - wrong + 1 - _inside(reference.error_rate)) / (images + 1)
        confidence = np.bincount(bins, _confidence(margins), minlength=len(images)) / np.maximum(images, 1)
        return cls(edges, right - confidence, right * (1 - right) / (images + 2))

    def update(self, state: AccuracyState, margins: Sequence[float]) -> AccuracyState:
        """Return the state after a micro-batch with these margins."""
        rounded = np.array(margins, np.float64).round(DIGITS).tolist()
        return AccuracyState(margins=(*state.margins, *rounded)[-IMAGES:])

    def estimate(self, state: AccuracyState) -> AccuracyEstimate | None:
        """Return what is expected of the latest images; None before the first."""
        if not state.margins:
            return None
        margins = np.array(state.margins)
        bins = np.searchsorted(self.edges, margins, side="right")
        right = np.clip(_confidence(margins) + self.correction[bins], LEAST_RATE / 2, 1 - LEAST_RATE / 2)
        shares = np.bincount(bins, minlength=len(self.variance)) / len(bins)
        own = float((right * (1 - right)).mean()) / len(bins)
        expected = float(right.mean())
        low, high = _wilson(expected, own + float(shares**2 @ self.variance))
        return AccuracyEstimate(expected=expected, low=low, high=high, images=len(bins))


def _confidence(margins: FloatArray) -> FloatArray:
    confidence: FloatArray = (1 + margins) / 2
    return confidence


def _inside(rate: float) -> float:
    """Return an error rate that leaves room for an error and for a right answer in any bin."""
    return min(max(rate, LEAST_RATE), 1 - LEAST_RATE)


def _wilson(share: float, variance: float) -> tuple[float, float]:
    """Return the Wilson interval of a share at as many independent images as have this variance."""
    images = share * (1 - share) / variance
    squared = DEVIATIONS**2
    centre = (share + squared / (2 * images)) / (1 + squared / images)
    half = DEVIATIONS * np.sqrt(variance + squared / (4 * images**2)) / (1 + squared / images)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
