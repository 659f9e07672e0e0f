"""What is measured: the streaming learner under the plan that the loop chooses."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import Any

from adapting import Method, Observe
from medloop_model.checkpoint import load_teacher
from medloop_model.training.batch import Batch
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.strategies import measured_plan
from medloop_model.training.streaming import StreamingLearner
from medloop_services.replay.split import Split
from problem import Problem


def medloop(changes: dict[str, Any] | None = None) -> Method:
    """Return the streaming learner as a method.

    Args:
        changes: of its plan, by the plan's names; to try something.
    """

    def learn(problem: Problem, observe: Observe) -> None:
        learner = StreamingLearner(problem.package, *_teacher_and_plan(problem, changes or {}))
        state = learner.begin(_labelled(problem.old, "old", problem.old_domains))
        for number, batch in enumerate(problem.batches()):
            state, _ = learner.step(state, _labelled(batch, f"new {number}"))
            observe(partial(learner.package, state))

    return learn


def parsed_changes(text: str) -> dict[str, Any]:
    """Return changes of a plan from `learning_rate=0.001,everything=True`.

    Raises:
        ValueError: the plan has no such field, or the value is not of its type.
    """
    kinds = {field.name: type(getattr(TrainingPlan("", ()), field.name)) for field in fields(TrainingPlan)}
    changes = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in kinds:
            raise ValueError(f"a training plan has no {name!r}; choose of {', '.join(kinds)}")
        changes[name] = value == "True" if kinds[name] is bool else kinds[name](value)
    return changes


def _labelled(split: Split, name: str, domains: tuple[str, ...] = ()) -> Batch:
    """An image that is shown twice is two images, as it is to a service."""
    return Batch(split.images, split.labels, tuple(f"{name}/{place}" for place in range(len(split))), domains)


def _teacher_and_plan(problem: Problem, changes: dict[str, Any]) -> tuple[Any, TrainingPlan]:
    """Choose as the online learner's trainer does."""
    plan = measured_plan(problem.strategy, problem.classes, problem.seed, slides=problem.slides)
    plan = replace(plan, **changes)
    if not problem.package.fisher:
        plan = replace(plan, ewc_lambda=0.0)
    teacher = problem.teacher
    if teacher is None or load_teacher(teacher).architecture.classes != problem.classes:
        # A teacher that does not know all classes can't say how likely they are.
        plan, teacher = replace(plan, alpha=1.0), None
    return teacher, plan
