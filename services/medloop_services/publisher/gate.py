"""The gate: does a candidate beat its base on new held-back images, without losing on the old ones, and is
it still as often right as it says?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from medloop_schemas import Artifact, CandidateTrained, Diagnosis, ExampleLabelled, Frame, ReleaseChanged

from medloop_services.publisher.audit import Evidence
from medloop_services.publisher.calibration import Answers, Calibration, compare_calibration
from medloop_services.publisher.comparison import Comparison, compare
from medloop_services.publisher.examples import is_new
from medloop_services.publisher.settings import PublisherSettings


class Evaluator(Protocol):
    """Runs a package on images."""

    def classes(self, package: Artifact) -> tuple[str, ...]:
        """Return the class names a package knows; raises InvalidEvent when it is broken."""

    def answer(self, package: Artifact, frames: Sequence[Frame]) -> Answers:
        """Return how likely each class is, for each frame; raises InvalidEvent or TransientError."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate passed, why, and on what numbers."""

    passed: bool
    reason: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Images to judge by: from before and from after the change."""

    old: tuple[ExampleLabelled, ...]
    new: tuple[ExampleLabelled, ...]


def held_back_for(
    candidate: CandidateTrained, base: ReleaseChanged, examples: Sequence[ExampleLabelled]
) -> HeldBack:
    """Divide held-back examples at the change that a candidate answers.

    An image of a class that only the candidate knows is new wherever it stands: an onset is an estimate, and
    images that the base can't get right would hide a loss on the old ones.
    """
    arrived = set(candidate.classes) - set(base.classes)

    def counts_as_new(example: ExampleLabelled) -> bool:
        return example.class_name in arrived or is_new(example, candidate.onset)

    return HeldBack(
        old=tuple(example for example in examples if not counts_as_new(example)),
        new=tuple(example for example in examples if counts_as_new(example)),
    )


def judge(
    candidate: CandidateTrained,
    base: ReleaseChanged,
    examples: HeldBack,
    evaluator: Evaluator,
    settings: PublisherSettings,
) -> Verdict:
    """Compare a candidate with its base on held-back studies, at least one of them new.

    A study that was shown again, or that has several images, counts once, by its last image: the bounds are
    for independent outcomes.

    Raises:
        InvalidEvent: a package is broken, or a frame can't be read.
        TransientError: a store is away.
    """
    found = evaluator.classes(candidate.package)
    if found != candidate.classes:
        return Verdict(
            passed=False, reason=f"the package knows {found}, not {candidate.classes} as announced"
        )
    new = _compared(candidate, base, examples.new, evaluator, settings)
    contract = {
        name: getattr(settings, name) for name in ("tolerance", "calibration_tolerance", "confidence")
    }
    evidence = _evidence("new", new) | contract
    if obstacle := _no_gain(new.accuracy) or _uncalibrated("new", new, settings):
        return Verdict(passed=False, reason=obstacle, evidence=evidence)
    gained = f"better on {new.accuracy.examples} new studies: {_in_words(new.accuracy)}"
    if candidate.diagnosis is Diagnosis.CONCEPT_DRIFT:
        reason = f"{gained}; old labels follow the old policy and do not count"
        return Verdict(passed=True, reason=reason, evidence=evidence)
    if len(examples.old) < settings.min_old:
        reason = (
            f"{len(examples.old)} old images are too few to rule out a loss; {settings.min_old} are needed"
        )
        return Verdict(passed=False, reason=reason, evidence=evidence | {"old_examples": len(examples.old)})
    if not examples.old:
        return Verdict(passed=True, reason=f"{gained}; there are no old images", evidence=evidence)
    old = _compared(candidate, base, examples.old, evaluator, settings)
    evidence |= _evidence("old", old)
    obstacle = _loss(old.accuracy, settings) or _uncalibrated("old", old, settings)
    return Verdict(passed=obstacle is None, reason=obstacle or gained, evidence=evidence)


@dataclass(frozen=True, slots=True)
class _Compared:
    """A candidate beside its base on the images of one side of the change."""

    accuracy: Comparison
    calibration: Calibration


def _compared(
    candidate: CandidateTrained,
    base: ReleaseChanged,
    examples: Sequence[ExampleLabelled],
    evaluator: Evaluator,
    settings: PublisherSettings,
) -> _Compared:
    last_of_each_study = {example.study_id: example for example in examples}.values()
    frames = [example.frame for example in last_of_each_study]
    labels = [example.class_name for example in last_of_each_study]
    before, after = (evaluator.answer(package, frames) for package in (base.package, candidate.package))
    return _Compared(
        accuracy=compare(labels, before.names, after.names, settings.confidence),
        calibration=compare_calibration(labels, before, after, settings.confidence),
    )


def _no_gain(new: Comparison) -> str | None:
    return f"no gain is sure on {new.examples} new studies: {_in_words(new)}" if new.lower <= 0 else None


def _loss(old: Comparison, settings: PublisherSettings) -> str | None:
    lost = old.upper < -settings.tolerance
    return f"loses on {old.examples} old studies: {_in_words(old)}" if lost else None


def _uncalibrated(domain: str, found: _Compared, settings: PublisherSettings) -> str | None:
    calibration = found.calibration
    if calibration.growth_lower <= settings.calibration_tolerance:
        return None
    return (
        f"less often right than it says on {found.accuracy.examples} {domain} studies: "
        f"calibration error {calibration.base:.3f} → {calibration.candidate:.3f}"
    )


def _evidence(domain: str, found: _Compared) -> dict[str, float | int | str | bool | None]:
    accuracy, calibration = found.accuracy, found.calibration
    return {
        f"{domain}_studies": accuracy.examples,
        f"{domain}_base": accuracy.base,
        f"{domain}_candidate": accuracy.candidate,
        f"{domain}_gain_lower": accuracy.lower,
        f"{domain}_gain_upper": accuracy.upper,
        f"{domain}_base_calibration_error": calibration.base,
        f"{domain}_candidate_calibration_error": calibration.candidate,
        f"{domain}_calibration_growth_lower": calibration.growth_lower,
    }


def _in_words(comparison: Comparison) -> str:
    return (
        f"balanced accuracy {comparison.base:.1%} → {comparison.candidate:.1%}, "
        f"gain between {comparison.lower:+.1%} and {comparison.upper:+.1%}"
    )
