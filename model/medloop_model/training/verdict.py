"""May a candidate go on? Better since the change, no loss on what was before, and as sure as it is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medloop_model.training.validation import Comparison


@dataclass(frozen=True)
class Limits:
    """By which a candidate is judged.

    Args:
        confidence: one-sided, of a gain shown and of a loss or a growth not shown.
        tolerance: accuracy that may be lost on examples of before the change.
        calibration_tolerance: by how much the expected calibration error may grow.
        fewest_studies: held-out studies of a side, below which nothing is sure.
    """

    confidence: float = 0.8
    tolerance: float = 0.02
    calibration_tolerance: float = 0.05
    fewest_studies: int = 16


@dataclass(frozen=True)
class Validation:
    """Base and candidate on held-out studies since the change and of before it; None where there is none."""

    new: Comparison | None
    old: Comparison | None


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate passed, and why, in a sentence."""

    passed: bool
    reason: str


def ruins_calibration(validation: Validation, limits: Limits) -> bool:
    """Whether the calibration error surely grew by more than is tolerated, on either side."""
    return next(_less_calibrated(validation, limits), None) is not None


def judge(validation: Validation, limits: Limits, *, old_counts: bool) -> Verdict:
    """Judge a model that was trained.

    Args:
        validation: on held-out studies.
        limits: what it has to show.
        old_counts: whether labels of before the change still hold.
    """
    obstacle = next(_obstacles(validation, limits, old_counts), None)
    if obstacle is not None or validation.new is None:
        return Verdict(passed=False, reason=obstacle or "")
    return Verdict(passed=True, reason=f"better since the change: {validation.new.in_words()}")


def judge_recalibrated(validation: Validation, limits: Limits) -> Verdict:
    """Judge a model whose answers alone were moved: more often right, or nearer to how often it is right.

    Labels of before the change don't count: the classes came in another mix then.
    """
    new = validation.new
    obstacle = next(_too_few(new, limits, "since the change"), None)
    if obstacle is not None or new is None:
        return Verdict(passed=False, reason=obstacle or "")
    (lower, upper), (_, growth) = new.gain_bounds, new.growth_bounds
    passed = lower > 0 or (growth < 0 and upper >= -limits.tolerance)
    how = "moved to the new mix" if passed else "neither more often right nor better calibrated"
    return Verdict(passed, f"{how}: {new.in_words()}, {_calibration_in_words(new)}")


def _obstacles(validation: Validation, limits: Limits, old_counts: bool) -> Iterator[str]:
    new, old = validation.new, validation.old
    yield from _too_few(new, limits, "since the change")
    if new is not None and new.gain_bounds[0] <= 0:
        yield f"no gain is sure since the change: {new.in_words()}"
    yield from _less_calibrated(validation, limits)
    if old_counts:
        yield from _too_few(old, limits, "of before the change")
        if old is not None and old.gain_bounds[1] < -limits.tolerance:
            yield f"loses on what was before the change: {old.in_words()}"


def _too_few(side: Comparison | None, limits: Limits, when: str) -> Iterator[str]:
    found = 0 if side is None else side.studies
    if found < limits.fewest_studies:
        yield f"{found} held-out studies {when} are too few; {limits.fewest_studies} are needed"


def _less_calibrated(validation: Validation, limits: Limits) -> Iterator[str]:
    for when, side in (("since", validation.new), ("of before", validation.old)):
        if side is not None and side.growth_bounds[0] > limits.calibration_tolerance:
            yield (
                f"less often right than it says on images {when} the change: {_calibration_in_words(side)}"
            )


def _calibration_in_words(side: Comparison) -> str:
    before, after = side.base.calibration_error.value, side.candidate.calibration_error.value
    return f"calibration error {before:.3f} → {after:.3f}"
