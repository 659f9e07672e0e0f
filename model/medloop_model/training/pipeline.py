"""The whole of an adaptation in one call: report → choice → search → fine-tuning → validation → candidate.

The services do the same one event at a time: the diagnosis is the aggregator's, the learner asks the same
selector and trains with the same learner, and the publisher's gate judges again on studies of its own.

Shape suffixes: B image · N class
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medloop_model.calibration import estimate_priors
from medloop_model.checkpoint import ModelPackage, load_package
from medloop_model.engine import Engine
from medloop_model.errors import ShapeError
from medloop_model.statistics import measure_reference
from medloop_model.training.batch import Batch
from medloop_model.training.calibration import (
    Answers,
    assumed_priors,
    recalibrated,
    temperature_of,
    temperature_of_base,
)
from medloop_model.training.images import to_labels
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.reason import told
from medloop_model.training.selector import Bounds, Cause, Choice, Labels, ModelFacts, Recalibration, choose
from medloop_model.training.streaming import StreamingLearner
from medloop_model.training.tuning import Past, Scores, Trial, Tuned, TuningSettings, brier_scores, tune
from medloop_model.training.validation import Comparison, Examples, answer, compare, hold_out, logits_of
from medloop_model.training.verdict import (
    Limits,
    Validation,
    Verdict,
    judge,
    judge_recalibrated,
    ruins_calibration,
)

TUNING = "tuning"
"""Purpose of the studies that a search judges by: others than those that judge the candidate."""


@dataclass(frozen=True)
class MonitoringReport:
    """What monitoring found, and what is at hand to answer it with.

    Args:
        cause: the diagnosis.
        affected: the devices that changed.
        old: labelled examples of before the change, in the order in which they came.
        new: labelled examples since; labels of new classes go on after the model's.
        unlabelled: uint8 (B, H, W) or (B, H, W, C), images since the change that nobody has labelled: from
            the model's answers to them new priors are estimated.
        new_classes: names of classes that have arrived.
    """

    cause: Cause
    affected: tuple[str, ...]
    old: Examples
    new: Examples
    unlabelled: NDArray[np.uint8]
    new_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PipelineSettings:
    """How an adaptation is done.

    Args:
        bounds: of the change.
        limits: by which the candidate is judged.
        tuning: how long hyperparameters are searched; None leaves the plan as it is.
        batch_size: examples of a mini-batch.
        seed: of everything that is drawn.
    """

    bounds: Bounds = field(default_factory=Bounds)
    limits: Limits = field(default_factory=Limits)
    tuning: TuningSettings | None = None
    batch_size: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Evidence:
    """On what a verdict rests.

    Args:
        old_labels, new_labels: labelled images of before and since that were trained on.
        validation: base and candidate on held-out studies; None where there is no candidate.
        temperature: that the candidate was softened by; 1 if it was not.
        priors: the candidate's by class name, if they were moved.
        tuned: the search for hyperparameters, if there was one.
        seconds: the whole took.
    """

    old_labels: int = 0
    new_labels: int = 0
    validation: Validation | None = None
    temperature: float = 1.0
    priors: dict[str, float] | None = None
    tuned: Tuned | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """What a pipeline hands over.

    Args:
        cause: that it answers.
        choice: what was done about it, and why.
        package: the adapted model; None where nothing was to be done.
        verdict: whether it may go on to the publisher.
        evidence: on what that rests.
    """

    cause: Cause
    choice: Choice
    package: ModelPackage | None
    verdict: Verdict
    evidence: Evidence

    def as_json(self) -> dict[str, Any]:
        """All but the package, as plain types."""
        reasons = {
            "reasons": [reason.sentence for reason in self.choice.reasons],
            "reason_codes": [reason.code for reason in self.choice.reasons],
        }
        return {
            "cause": self.cause.value,
            "choice": asdict(self.choice) | reasons,
            "verdict": asdict(self.verdict),
            "evidence": asdict(self.evidence),
        }


@dataclass(frozen=True)
class Lesson:
    """A learner after one mini-batch.

    Args:
        answers: to the mini-batches so far, each before it was trained on, but for images of studies that
            had been.
        package: gives the model as it is now.
    """

    answers: Answers
    package: Callable[[], ModelPackage]


def auto_tuning_pipeline(
    monitoring_report: MonitoringReport,
    current_model_path: Path,
    teacher_path: Path | None = None,
    settings: PipelineSettings | None = None,
    *,
    past: Sequence[Past] = (),
    clock: Callable[[], float] = time.monotonic,
    progress: Callable[[Trial], None] = lambda trial: None,
) -> Candidate:
    """Answer a monitoring report with a candidate.

    Diagnosis → strategy → search, if asked for → fine-tuning, one update a mini-batch → validation on
    held-out studies of both sides → candidate. Without a search all but the seconds depends on the report,
    the model and the settings alone; with one also on the clock.

    Args:
        monitoring_report: what was found.
        current_model_path: the package that serves, with its latent weights.
        teacher_path: its full-precision teacher, if there is one.
        settings: the usual ones unless given.
        past: earlier searches, the best first.
        clock: seconds, for the search's budget and the evidence.
        progress: told of each trial of the search.

    Raises:
        CorruptCheckpoint, PickledCheckpoint: the model or its teacher can't be read.
        ShapeError: images or labels don't fit the model.
    """
    settings = settings or PipelineSettings()
    started = clock()
    base = load_package(current_model_path, parts=("packed", "latent", "fisher"))
    task = _Task.of(monitoring_report, base, teacher_path, settings)
    choice = choose(
        monitoring_report.cause,
        ModelFacts.of(base, teacher_path),
        Labels(old=len(task.old), new=len(task.new)),
        settings.bounds,
        new_classes=monitoring_report.new_classes,
        seed=settings.seed,
    )
    if choice.plan is not None:
        candidate = task.fine_tuned(choice, choice.plan, past, clock, progress)
    elif choice.recalibration is not None:
        candidate = task.moved(choice, choice.recalibration)
    else:
        verdict = Verdict(passed=False, reason=choice.reasons[-1].sentence)
        candidate = Candidate(monitoring_report.cause, choice, None, verdict, Evidence())
    evidence = replace(candidate.evidence, seconds=clock() - started)
    return replace(candidate, evidence=evidence)


def teach(
    package: ModelPackage,
    teacher_path: Path | None,
    plan: TrainingPlan,
    *,
    old: Examples,
    new: Examples,
    batch_size: int,
) -> Iterator[Lesson]:
    """Teach a learner what came, one mini-batch after the other; the one place that drives a learner.

    Raises:
        ShapeError: images or labels don't fit the model.
    """
    learner = StreamingLearner(package, teacher_path if plan.alpha < 1 else None, plan)
    state = learner.begin(_batch(old, "old"))
    answers = Answers.none(len(plan.classes))
    for start in range(0, len(new), batch_size):
        batch = new.select(slice(start, start + batch_size))
        taught = np.concatenate([old.studies, new.studies[:start]])
        fresh_B = ~np.isin(batch.studies, taught)
        logits_BN = learner.logits(state, batch.images)
        answers = answers.joined(Answers(logits_BN[fresh_B], batch.labels[fresh_B]))
        state, _ = learner.step(state, _batch(batch, f"new {start}"))
        yield Lesson(answers, partial(learner.package, state))


def _batch(examples: Examples, name: str) -> Batch:
    """Each image under an id of its own: a study may have several."""
    return Batch(examples.images, examples.labels, tuple(f"{name}/{place}" for place in range(len(examples))))


@dataclass(frozen=True)
class _Task:
    """A report's examples, divided by study, and the model to adapt to them."""

    report: MonitoringReport
    base: ModelPackage
    teacher_path: Path | None
    settings: PipelineSettings
    old: Examples
    new: Examples
    judging_old: Examples
    judging_new: Examples

    @classmethod
    def of(
        cls,
        report: MonitoringReport,
        base: ModelPackage,
        teacher_path: Path | None,
        settings: PipelineSettings,
    ) -> _Task:
        (old, judging_old), (new, judging_new) = hold_out(report.old), hold_out(report.new)
        return cls(report, base, teacher_path, settings, old, new, judging_old, judging_new)

    @property
    def old_counts(self) -> bool:
        """Whether what was before the change still judges: not under a new policy, not in another mix."""
        return self.report.cause in {Cause.DATA_DRIFT, Cause.NEW_CLASS}

    def fine_tuned(
        self,
        choice: Choice,
        plan: TrainingPlan,
        past: Sequence[Past],
        clock: Callable[[], float],
        progress: Callable[[Trial], None],
    ) -> Candidate:
        """Train by a plan, or by a better one that a search finds; recalibrate if calibration is ruined."""
        tuned = self._tuned(plan, past, clock, progress)
        plan = tuned.plan if tuned else plan
        *_, lesson = self._lessons(plan, self.old, self.new)
        package, temperature = lesson.package(), 1.0
        validation = self._validated(package)
        # Answers are of the trained head, and say nothing of one that was fitted in closed form.
        if ruins_calibration(validation, self.settings.limits) and not plan.discriminant_images:
            temperature = temperature_of(lesson.answers)
            package = recalibrated(package, temperature=temperature)
            validation = self._validated(package)
        verdict = judge(validation, self.settings.limits, old_counts=self.old_counts)
        evidence = Evidence(len(self.old), len(self.new), validation, temperature, tuned=tuned)
        return self._candidate(replace(choice, plan=plan), package, verdict, evidence)

    def moved(self, choice: Choice, recalibration: Recalibration) -> Candidate:
        """Move the base's answers to the priors of what comes now; nothing is trained.

        Raises:
            ShapeError: there is no image since the change, or a label is of no class of the base.
        """
        temperature = 1.0
        if recalibration.temperature:
            labelled = self.old if len(self.old) else self.new
            to_labels(labelled.labels, self.base.architecture)
            logits_BN = logits_of(self.base, labelled.images)
            temperature = temperature_of_base(self.base, logits_BN, labelled.labels)
        shown = [images for images in (self.report.unlabelled, self.new.images) if len(images)]
        if not shown:
            raise ShapeError("new priors need images since the change: give some, labelled or not")
        softened = recalibrated(self.base, temperature=temperature)
        answers_BN = answer(softened, np.concatenate(shown))
        priors_N = estimate_priors(answers_BN, assumed_priors(self.base))
        package = recalibrated(self.base, temperature=temperature, priors_N=priors_N)
        validation = self._validated(package, balanced=False)
        verdict = judge_recalibrated(validation, self.settings.limits)
        named = dict(zip(self.base.architecture.classes, priors_N.tolist(), strict=True))
        return self._candidate(
            choice, package, verdict, Evidence(0, 0, validation, temperature, priors=named)
        )

    def _lessons(self, plan: TrainingPlan, old: Examples, new: Examples) -> Iterator[Lesson]:
        return teach(
            self.base, self.teacher_path, plan, old=old, new=new, batch_size=self.settings.batch_size
        )

    def _tuned(
        self,
        plan: TrainingPlan,
        past: Sequence[Past],
        clock: Callable[[], float],
        progress: Callable[[Trial], None],
    ) -> Tuned | None:
        """Search on studies that neither the trials train on nor the candidate is judged by."""
        if self.settings.tuning is None:
            return None
        most_steps = min(self.settings.tuning.rehearsal_steps, self.settings.bounds.rehearsal_steps)
        settings = replace(self.settings.tuning, rehearsal_steps=most_steps)
        (old, old_trial), (new, new_trial) = hold_out(self.old, TUNING), hold_out(self.new, TUNING)
        if not len(new) or not len(new_trial):
            return None
        sides = [side for side in (new_trial, *([old_trial] * self.old_counts)) if len(side)]

        def train(tried: TrainingPlan) -> Iterator[Scores]:
            # A trial's own Fisher information is of no use: one image's is measured, the fewest possible.
            for lesson in self._lessons(replace(tried, fisher_images=1), old, new):
                package = lesson.package()
                scored = [brier_scores(answer(package, side.images), side.labels) for side in sides]
                count = sum(map(len, sides)) / len(sides)  # so that each side counts the same in the mean
                yield np.concatenate([scores * count / len(scores) for scores in scored])

        known = [one.parameters for one in past if one.strategy == plan.strategy]
        return tune(plan, train, settings, clock, past=known, progress=progress)

    def _validated(self, package: ModelPackage, *, balanced: bool = True) -> Validation:
        trained = np.concatenate([self.old.studies, self.new.studies])

        def compared(examples: Examples) -> Comparison | None:
            if not len(examples):
                return None
            to_labels(examples.labels, package.architecture)
            return compare(
                answer(self.base, examples.images),
                answer(package, examples.images),
                examples,
                package.architecture.classes,
                trained=trained,
                confidence=self.settings.limits.confidence,
                balanced=balanced,
                seed=self.settings.seed,
            )

        return Validation(
            new=compared(self.judging_new), old=compared(self.judging_old) if self.old_counts else None
        )

    def _candidate(
        self, choice: Choice, package: ModelPackage, verdict: Verdict, evidence: Evidence
    ) -> Candidate:
        """With the monitoring reference of what comes now, so that the candidate can be watched."""
        if now := len(self.report.new):
            studies = np.unique(self.report.new.studies, return_inverse=True)[1]
            reference = measure_reference(
                Engine(package), self.report.new.images, self.report.new.labels, self.settings.seed, studies
            )
            package = replace(package, reference=reference.to_tensors())
        about = {"diagnosis": self.report.cause.value, "examples": now} | told(choice.reasons)
        return Candidate(
            self.report.cause,
            choice,
            replace(package, provenance=dict(package.provenance) | about),
            verdict,
            evidence,
        )
