"""What to do about a change: (diagnosis, model, labels, bounds) → a plan, a recalibration, or nothing.

```
cause           what is done
data-drift      old images teach as the new scanner would show them, beside new ones
concept-drift   everything is trained, on labels, and on the teacher where it agrees with them
new-class       the head gains a row
prior-shift     nothing is trained; the head's biases follow the new priors
sensor-fault    nothing: frames that are no pictures teach nothing, and tell nothing of answers
```

Then `RULES` fit the plan to the model, the labels and the bounds, in their order; each that applies says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from medloop_model.checkpoint import ModelPackage, load_teacher
from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD, SHALLOW_EWC, STRATEGIES
from medloop_model.training.images import usual_bounds
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.reason import Reason
from medloop_model.training.strategies import article_plan, measured_plan


class Cause(StrEnum):
    """What has changed."""

    DATA_DRIFT = "data-drift"
    CONCEPT_DRIFT = "concept-drift"
    NEW_CLASS = "new-class"
    PRIOR_SHIFT = "prior-shift"
    SENSOR_FAULT = "sensor-fault"


STRATEGY_OF: Mapping[Cause, str] = {
    Cause.DATA_DRIFT: SHALLOW_EWC,
    Cause.CONCEPT_DRIFT: DISTIL_ALL,
    Cause.NEW_CLASS: EXPAND_HEAD,
}
"""How to train for a cause; for the others nothing is trained."""

WHY = {
    Cause.DATA_DRIFT: "Images look different and mean the same: old ones, shown as the new scanner would, "
    "teach with the labels that they have.",
    Cause.CONCEPT_DRIFT: "The same images are called something else: everything is trained, on labels, and "
    "on the teacher only where it agrees with them, since elsewhere it keeps to the old policy.",
    Cause.NEW_CLASS: "A class arrived: the head gains a row, and what sees the images stays as it is.",
    Cause.PRIOR_SHIFT: "Other patients come, each of whom looks as ever: nothing is there to be learned, "
    "and the answers are moved to how often each class comes now.",
    Cause.SENSOR_FAULT: "The frames are no pictures: nothing is trained or recalibrated until the device is "
    "mended.",
}


@dataclass(frozen=True)
class ModelFacts:
    """What matters of a model for the choice.

    Args:
        classes: it knows.
        fisher: whether it carries Fisher information.
        teacher_classes: its full-precision teacher's; None without a teacher.
        slides: whether its images are stained slides.
    """

    classes: tuple[str, ...]
    fisher: bool
    teacher_classes: tuple[str, ...] | None
    slides: bool

    @classmethod
    def of(cls, package: ModelPackage, teacher_path: Path | None) -> ModelFacts:
        """Read them from a package with its fisher part, and its teacher.

        Raises:
            CorruptCheckpoint, PickledCheckpoint: the teacher can't be read.
        """
        architecture = package.architecture
        return cls(
            classes=architecture.classes,
            fisher=bool(package.fisher),
            teacher_classes=load_teacher(teacher_path).architecture.classes if teacher_path else None,
            slides=usual_bounds(architecture).stained,
        )


@dataclass(frozen=True)
class Labels:
    """Labelled images at hand, by domain: of before the change and since."""

    old: int
    new: int


@dataclass(frozen=True)
class Bounds:
    """What a change may be, as a change-control plan or a device's speed has it.

    Args:
        strategies: that may be used.
        rehearsal_steps: at most, beside the one on each mini-batch: what a device can do in time. Where they
            are fewer than a plan's, the plan's many `first_steps` are left out too.
        fewest_labels: of new images, below which nothing is trained.
        article: whether to train by the source article's rules, and not by those that were measured best.
    """

    strategies: frozenset[str] = frozenset(STRATEGIES)
    rehearsal_steps: int = 20
    fewest_labels: int = 16
    article: bool = False


@dataclass(frozen=True)
class Recalibration:
    """The head's biases follow the priors of what comes now; nothing is trained.

    Args:
        temperature: whether labels are at hand to fit one to first.
    """

    temperature: bool


@dataclass(frozen=True)
class Choice:
    """What to do, and why: a plan, a recalibration, or neither.

    Args:
        reasons: the cause's first, whose code is the cause.
        plan: how to train.
        recalibration: what to set right instead.
    """

    reasons: tuple[Reason, ...]
    plan: TrainingPlan | None = None
    recalibration: Recalibration | None = None

    @property
    def distils(self) -> bool:
        """Whether a learner of the plan needs the teacher."""
        return self.plan is not None and self.plan.alpha < 1


@dataclass(frozen=True)
class Situation:
    """What a choice depends on."""

    cause: Cause
    model: ModelFacts
    classes: tuple[str, ...]
    labels: Labels
    bounds: Bounds


@dataclass(frozen=True)
class Rule:
    """One line of the table: where it applies, what it changes in the plan, and why.

    Args:
        applies: to a situation and the plan as it stands.
        change: the plan's fields that take other values.
        reason: why.
    """

    applies: Callable[[Situation, TrainingPlan], bool]
    change: Callable[[Situation], dict[str, Any]]
    reason: Reason


RULES = (
    Rule(
        lambda case, plan: plan.ewc_lambda > 0 and not case.model.fisher,
        lambda case: {"ewc_lambda": 0.0},
        Reason(
            "no-fisher",
            "The model carries no Fisher information: nothing says which weights matter, so there is no EWC.",
        ),
    ),
    Rule(
        lambda case, plan: plan.alpha < 1 and case.model.teacher_classes is None,
        lambda case: {"alpha": 1.0},
        Reason(
            "no-teacher",
            "The model has no teacher: the labels have full weight.",
        ),
    ),
    Rule(
        lambda case, plan: plan.alpha < 1 and case.model.teacher_classes != case.classes,
        lambda case: {"alpha": 1.0},
        Reason(
            "teacher-of-other-classes",
            "The teacher knows other classes and can't say how likely these are: "
            "the labels have full weight.",
        ),
    ),
    Rule(
        lambda case, plan: case.labels.old == 0 and plan.retention > 0,
        lambda case: {"retention": 0.0},
        Reason(
            "no-old-images",
            "There are no labelled images from before the change: none can be rehearsed.",
        ),
    ),
    Rule(
        lambda case, plan: plan.restyled > 0 and case.labels.old == 0,
        lambda case: {"restyled": 0, "first_steps": 0},
        Reason(
            "nothing-to-restyle",
            "Without old images there are none to show as the new scanner would.",
        ),
    ),
    Rule(
        lambda case, plan: plan.transplanted > 0 and case.labels.old == 0,
        lambda case: {"transplanted": 0},
        Reason(
            "nothing-to-transplant",
            "Without old cells there are none to transplant.",
        ),
    ),
    Rule(
        lambda case, plan: plan.discriminant_images > 0,
        lambda case: {},
        Reason(
            "closed-form-head",
            "A few dozen labelled cells place a head badly by gradient steps: it is fitted in closed form.",
        ),
    ),
    Rule(
        lambda case, plan: plan.rehearsal_steps > case.bounds.rehearsal_steps,
        lambda case: {"rehearsal_steps": case.bounds.rehearsal_steps, "first_steps": 0},
        Reason(
            "fewer-steps",
            "The bounds allow fewer steps a mini-batch than were measured to be best.",
        ),
    ),
)


def choose(
    cause: Cause,
    model: ModelFacts,
    labels: Labels,
    bounds: Bounds | None = None,
    *,
    new_classes: tuple[str, ...] = (),
    seed: int = 0,
) -> Choice:
    """Choose what to do about a change.

    Args:
        cause: what has changed.
        model: what it has changed for.
        labels: at hand now; a learner that streams gives what it expects to get.
        bounds: of the change; wide ones unless given.
        new_classes: names of classes that have arrived.
        seed: of the plan.
    """
    bounds = bounds or Bounds()
    why = Reason(cause.value, WHY[cause])
    if cause is Cause.SENSOR_FAULT:
        return Choice((why,))
    if cause is Cause.PRIOR_SHIFT:
        return _recalibrated(why, labels)
    strategy = STRATEGY_OF[cause]
    if strategy not in bounds.strategies:
        forbidden = f"The bounds do not allow {strategy}: nothing is trained."
        return Choice((why, Reason("strategy-not-allowed", forbidden)))
    needed = max(bounds.fewest_labels, 1)
    if labels.new < needed:
        waiting = f"{labels.new} labelled images since the change are too few: {needed} are needed."
        return Choice((why, Reason("too-few-labels", waiting)))
    arrived = tuple(name for name in new_classes if name not in model.classes)
    if cause is Cause.NEW_CLASS and not arrived:
        known = "No class is named that the model lacks: there is nothing to expand."
        return Choice((why, Reason("no-new-class", known)))
    classes = model.classes + (arrived if cause is Cause.NEW_CLASS else ())
    case = Situation(cause, model, classes, labels, bounds)
    if bounds.article:
        plan = article_plan(strategy, classes, seed)
        reasons = [why, Reason("article", "The source article's rules are asked for, to the letter.")]
    else:
        plan = measured_plan(strategy, classes, seed, slides=model.slides)
        reasons = [why]
    for rule in RULES:
        if rule.applies(case, plan):
            plan = replace(plan, **rule.change(case))
            reasons.append(rule.reason)
    return Choice(tuple(reasons), plan)


def _recalibrated(why: Reason, labels: Labels) -> Choice:
    known = labels.new + labels.old > 0
    said = (
        Reason(
            "temperature-fitted",
            "Labels are at hand: a temperature is fitted first, since priors are estimated from answers.",
        )
        if known
        else Reason("no-labels", "There are no labels: the answers are taken to be calibrated.")
    )
    return Choice((why, said), recalibration=Recalibration(temperature=known))
