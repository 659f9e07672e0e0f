"""Two models on the same labelled images: balanced accuracies, and how far apart they are for sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate beside its base.

    Attributes:
        examples: images compared on.
        base: the base's balanced accuracy, 0 to 1: the mean of its recalls over the classes that occur.
        candidate: the candidate's.
        lower: one-sided lower confidence bound of candidate − base.
        upper: one-sided upper one.
    """

    examples: int
    base: float
    candidate: float
    lower: float
    upper: float

    @property
    def gain(self) -> float:
        """Candidate − base."""
        return self.candidate - self.base


def compare(
    labels: Sequence[str], base: Sequence[str], candidate: Sequence[str], confidence: float
) -> Comparison:
    """Compare two models' class names with the readers', image by image.

    The bounds are Bonett and Price's adjusted Wald interval for paired proportions (Journal of Educational
    and Behavioral Statistics 37, 2012, p. 479), averaged over the classes. The one that they add to both
    discordant counts is shared by the classes, as the same authors do for sums of proportions (Computational
    Statistics & Data Analysis 45, 2004, p. 449): one a class would pull many small classes towards no
    difference, and hide a loss. They are for one look at a number of images that the outcome did not choose.

    Args:
        labels: what readers said; at least one.
        base: what the base says of the same images.
        candidate: what the candidate says of them.
        confidence: of each bound, 0.5 to 1.
    """
    classes = sorted(set(labels))
    pairs = {name: _pairs(name, labels, base, candidate) for name in classes}
    added = 1 / len(classes)
    differences, variances = zip(*(_difference(found, added) for found in pairs.values()), strict=True)
    middle, error = fmean(differences), sqrt(sum(variances)) / len(classes)
    margin = NormalDist().inv_cdf(confidence) * error
    return Comparison(
        examples=len(labels),
        base=fmean(fmean(right for right, _ in found) for found in pairs.values()),
        candidate=fmean(fmean(right for _, right in found) for found in pairs.values()),
        lower=middle - margin,
        upper=middle + margin,
    )


def _pairs(
    name: str, labels: Sequence[str], base: Sequence[str], candidate: Sequence[str]
) -> list[tuple[bool, bool]]:
    return [
        (base_says == name, candidate_says == name)
        for label, base_says, candidate_says in zip(labels, base, candidate, strict=True)
        if label == name
    ]


def _difference(pairs: Sequence[tuple[bool, bool]], added: float) -> tuple[float, float]:
    """Return the adjusted difference of two paired proportions and its variance."""
    size = len(pairs) + 2 * added
    won = (sum(candidate and not base for base, candidate in pairs) + added) / size
    lost = (sum(base and not candidate for base, candidate in pairs) + added) / size
    return won - lost, (won + lost - (won - lost) ** 2) / size
