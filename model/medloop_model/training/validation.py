"""Validation that can be believed: on studies that were never trained on, with intervals, class by class.

A study is held out by a hash of its name alone. So it is held out whenever it comes again, whatever else
there is, and a later model is not judged by what an earlier one was trained on.

Shape suffixes: B image · N class · D draw
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medloop_model.accuracy import accuracy, balanced_accuracy, class_recalls
from medloop_model.bootstrap import DRAWS, Interval, study_draws
from medloop_model.calibration import expected_calibration_error
from medloop_model.checkpoint import ModelPackage
from medloop_model.engine import Engine
from medloop_model.errors import ShapeError, StudyOnBothSides
from medloop_model.statistics import softmax

HELD_OUT_ONE_IN = 4
BATCH = 64


@dataclass(frozen=True)
class Examples:
    """Labelled images, in the order in which they came.

    Args:
        images: uint8 (B, H, W) or (B, H, W, C).
        labels: int64 (B,), class indices.
        studies: str (B,), each image's study, or a hash of it.

    Raises:
        ShapeError: not one label and one study an image.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    studies: NDArray[np.str_]

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.studies):
            raise ShapeError(
                f"{len(self.images)} images, {len(self.labels)} labels and {len(self.studies)} studies: "
                "each image needs one of both"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Examples:
        """The examples that a mask, an index array or a slice chooses."""
        return Examples(self.images[chosen], self.labels[chosen], self.studies[chosen])


def held_out(study: str, purpose: str = "", one_in: int = HELD_OUT_ONE_IN) -> bool:
    """Whether a study is held out: every fourth or so, by the first 32 bits of its SHA-256.

    Args:
        study: its name, or a hash of it.
        purpose: another purpose holds out other studies.
        one_in: how few.
    """
    return int(hashlib.sha256(f"{purpose}{study}".encode()).hexdigest()[:8], 16) % one_in == 0


def hold_out(examples: Examples, purpose: str = "") -> tuple[Examples, Examples]:
    """Divide examples into those to train on and those to judge by; no study is on both sides."""
    judged_B = np.array([held_out(str(study), purpose) for study in examples.studies], np.bool_)
    return examples.select(~judged_B), examples.select(judged_B)


def require_apart(trained: Iterable[str], judged: Iterable[str]) -> None:
    """Refuse to judge by what was trained on.

    Raises:
        StudyOnBothSides: names a study that is in both.
    """
    shared = sorted({str(study) for study in trained} & {str(study) for study in judged})
    if shared:
        raise StudyOnBothSides(shared[0], len(shared))


def logits_of(package: ModelPackage, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A package's logits (B, N), of the engine that also serves: what is judged is what runs.

    Raises:
        ShapeError: the images don't fit the model.
    """
    engine = Engine(package)
    parts = [engine(images[start : start + BATCH]).logits for start in range(0, len(images), BATCH)]
    return np.concatenate(parts) if parts else np.zeros((0, len(engine.classes)), np.float32)


def answer(package: ModelPackage, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A package's class probabilities (B, N), as `logits_of`."""
    return softmax(logits_of(package, images))


@dataclass(frozen=True)
class Measured:
    """A model on some examples; figures in [0, 1], with 95 % intervals.

    Args:
        accuracy: share of the images that are found.
        balanced_accuracy: mean of the recalls of the classes that occur.
        recall: share found, by class name.
        calibration_error: expected calibration error, 15 bins.
    """

    accuracy: Interval
    balanced_accuracy: Interval
    recall: Mapping[str, Interval]
    calibration_error: Interval


@dataclass(frozen=True)
class Comparison:
    """A base and its candidate on the same examples.

    Args:
        images: how many.
        studies: of how many studies.
        base, candidate: their figures.
        balanced: whether the gain is of balanced accuracy, or of accuracy.
        gain: with its 95 % interval.
        growth: of the calibration error, with its 95 % interval.
        gain_bounds, growth_bounds: lower and upper, each one-sided at the confidence asked for.
    """

    images: int
    studies: int
    base: Measured
    candidate: Measured
    balanced: bool
    gain: Interval
    growth: Interval
    gain_bounds: tuple[float, float]
    growth_bounds: tuple[float, float]

    def in_words(self) -> str:
        """Accuracies and gain, as part of a sentence."""
        name = "balanced accuracy" if self.balanced else "accuracy"
        before, after = (
            (each.balanced_accuracy if self.balanced else each.accuracy).value
            for each in (self.base, self.candidate)
        )
        lower, upper = self.gain_bounds
        return (
            f"{name} {before:.1%} → {after:.1%} on {self.studies} studies, "
            f"gain between {lower:+.1%} and {upper:+.1%}"
        )


def compare(
    base_BN: NDArray[np.floating],
    candidate_BN: NDArray[np.floating],
    examples: Examples,
    classes: tuple[str, ...],
    *,
    trained: Iterable[str],
    confidence: float,
    balanced: bool = True,
    seed: int = 0,
    draws: int = DRAWS,
) -> Comparison:
    """Compare two models' answers to the same examples; both are drawn alike, so that chance is shared.

    Args:
        base_BN: the base's probabilities; it may have fewer classes, and what it lacks it never finds.
        candidate_BN: the candidate's.
        examples: at least one.
        classes: names, by class index.
        trained: studies that either model was trained on.
        confidence: of each one-sided bound, 0.5 to 1.
        balanced: whether the gain is of balanced accuracy, in which every class counts the same.
        seed: of the draws.
        draws: how many.

    Raises:
        ShapeError: no examples.
        StudyOnBothSides: an example is of a study that was trained on.
    """
    require_apart(trained, examples.studies)
    if not len(examples):
        raise ShapeError("there is nothing to compare on: no example")
    draws_DB = study_draws(examples.studies, seed, draws)
    base, of_base = _measured(base_BN, examples, classes, draws_DB)
    candidate, of_candidate = _measured(candidate_BN, examples, classes, draws_DB)
    gain_D = (of_candidate - of_base)[0 if balanced else 1]
    growth_D = (of_candidate - of_base)[2]
    before, after = ((x.balanced_accuracy if balanced else x.accuracy).value for x in (base, candidate))
    growth = candidate.calibration_error.value - base.calibration_error.value
    return Comparison(
        images=len(examples),
        studies=len(np.unique(examples.studies)),
        base=base,
        candidate=candidate,
        balanced=balanced,
        gain=Interval.of(after - before, gain_D),
        growth=Interval.of(growth, growth_D),
        gain_bounds=_bounds(gain_D, confidence),
        growth_bounds=_bounds(growth_D, confidence),
    )


def _bounds(drawn_D: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    lower, upper = np.quantile(drawn_D, [1 - confidence, confidence])
    return float(lower), float(upper)


def _measured(
    probabilities_BN: NDArray[np.floating],
    examples: Examples,
    classes: tuple[str, ...],
    draws_DB: NDArray[np.int64],
) -> tuple[Measured, NDArray[np.float64]]:
    """A model's figures, and (3, D) what they are in each draw: balanced accuracy, accuracy, calibration."""
    labels_B = examples.labels
    predicted_B = probabilities_BN.argmax(axis=1)
    right_B = predicted_B == labels_B
    member_NB = labels_B == np.unique(labels_B)[:, None]
    with np.errstate(invalid="ignore"):  # a draw without any image of a class has no recall for it
        recall_DN = (draws_DB @ (member_NB & right_B).T) / (draws_DB @ member_NB.T)
    balanced_D = np.nanmean(recall_DN, axis=1)
    accuracy_D = draws_DB @ right_B / draws_DB.sum(axis=1)
    error_D = expected_calibration_error(probabilities_BN, labels_B, draws_DB)
    error = float(expected_calibration_error(probabilities_BN, labels_B)[0])
    recalls = sorted(class_recalls(predicted_B, labels_B).items())
    measured = Measured(
        accuracy=Interval.of(accuracy(predicted_B, labels_B), accuracy_D),
        balanced_accuracy=Interval.of(balanced_accuracy(predicted_B, labels_B), balanced_D),
        recall={
            classes[label]: Interval.of(recall, recall_DN[:, place])
            for place, (label, recall) in enumerate(recalls)
        },
        calibration_error=Interval.of(error, error_D),
    )
    return measured, np.stack([balanced_D, accuracy_D, error_D])
