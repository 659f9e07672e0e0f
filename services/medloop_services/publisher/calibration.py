"""Whether a candidate is as often right as it says, beside its base on the same labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from medloop_model.bootstrap import study_draws
from medloop_model.calibration import expected_calibration_error
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of n images.

    Attributes:
        classes: their names.
        probabilities: float32 (n, classes), each row sums to 1.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]

    @property
    def names(self) -> list[str]:
        """The likeliest class of each image."""
        return [self.classes[index] for index in self.probabilities.argmax(axis=1)]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Two expected calibration errors.

    Attributes:
        base: the base's, 0 to 1.
        candidate: the candidate's.
        growth_lower: one-sided lower confidence bound of candidate − base.
    """

    base: float
    candidate: float
    growth_lower: float


def compare_calibration(
    labels: Sequence[str], base: Answers, candidate: Answers, confidence: float
) -> Calibration:
    """Compare how far two models are from being right as often as they say.

    The bound is of a bootstrap over the images, drawn alike for both models. On few images both errors are
    too high, by about as much; what is compared is their difference.

    Args:
        labels: what readers said, of images each of a study of its own; at least one.
        base: what the base says of them.
        candidate: what the candidate says of them.
        confidence: of the bound, 0.5 to 1.
    """
    draws = study_draws(np.arange(len(labels)).astype(np.str_), seed=0)
    errors, drawn = zip(*(_errors(labels, answers, draws) for answers in (base, candidate)), strict=True)
    growth = float(np.quantile(drawn[1] - drawn[0], 1 - confidence))
    return Calibration(base=errors[0], candidate=errors[1], growth_lower=growth)


def _errors(
    labels: Sequence[str], answers: Answers, draws: NDArray[np.int64]
) -> tuple[float, NDArray[np.float64]]:
    """Return a model's calibration error, and what it is in each draw."""
    places = {name: place for place, name in enumerate(answers.classes)}
    truth = np.array([places.get(label, len(places)) for label in labels])
    (error,) = expected_calibration_error(answers.probabilities, truth)
    return float(error), expected_calibration_error(answers.probabilities, truth, draws)
