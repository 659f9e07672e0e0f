"""One method learns one problem; its model is judged on both domains as labels come in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from drifts import COUNTS
from medloop_model.accuracy import accuracy, balanced_accuracy
from medloop_model.checkpoint import ModelPackage
from medloop_model.engine import Engine
from medloop_services.replay.settings import ScenarioName
from medloop_services.replay.split import Split
from medloop_services.report.evaluation import predict
from numpy.typing import NDArray
from problem import Problem

ENOUGH_OF_A_CLASS = 32
"""Images of a new class after which its recall is judged beside the usual counts."""

Exporter = Callable[[], ModelPackage]
Observe = Callable[[Exporter], None]
"""What a method calls after each update, with what returns its model as it is now."""

Method = Callable[[Problem, Observe], None]
"""Learns a problem's stream in order, update by update."""


@dataclass(frozen=True)
class Point:
    """How good a model is; shares in [0, 1].

    Attributes:
        labels: images of the new domain learned from.
        changed_labels: those of them that the change touches.
        new, old: balanced accuracy on the tests of both domains.
        changed: accuracy on what the change touches: a new class's recall, the relabelled images.
    """

    labels: int
    changed_labels: int
    new: float
    old: float
    changed: float


@dataclass
class Judge:
    """Watches a method learn.

    Attributes:
        problem: what is learned.
        points: what was found so far.
        seconds: of the processor for learning, judging left out.
    """

    problem: Problem
    points: list[Point] = field(default_factory=list)
    seconds: float = 0.0
    _batches: int = 0
    _since: float = field(default_factory=time.process_time)

    def __call__(self, export: Exporter) -> None:
        """Take note of one update; the model is judged where a count is reached."""
        self.seconds += time.process_time() - self._since
        sizes = [len(batch) for batch in self.problem.batches()]
        before, after = sum(sizes[: self._batches]), sum(sizes[: self._batches + 1])
        self._batches += 1
        last = self._batches == len(sizes)
        if last or after in COUNTS or self._has_enough_now(before, after):
            self.points.append(judged(self.problem, export(), after))
        self._since = time.process_time()

    def _has_enough_now(self, before: int, after: int) -> bool:
        if self.problem.drift.scenario is not ScenarioName.NEW_CLASS:
            return False
        changed = self.problem.changed_stream
        return int(changed[:before].sum()) < ENOUGH_OF_A_CLASS <= int(changed[:after].sum())


def adapt(problem: Problem, method: Method) -> Judge:
    """Return what was found while a method learned a problem."""
    judge = Judge(problem)
    method(problem, judge)
    return judge


def judged(problem: Problem, package: ModelPackage, labels: int) -> Point:
    """Judge a model on both domains' tests.

    Args:
        problem: whose tests.
        package: the model, as the engine serves it.
        labels: learned from so far.
    """
    engine = Engine(package)
    answers = _answers(engine, problem.new_test)
    return Point(
        labels=labels,
        changed_labels=int(problem.changed_stream[:labels].sum()),
        new=balanced_accuracy(answers, problem.new_test.labels),
        old=balanced_accuracy(_answers(engine, problem.old_test), problem.old_test.labels),
        changed=accuracy(answers[problem.changed], problem.new_test.labels[problem.changed]),
    )


def _answers(engine: Engine, split: Split) -> NDArray[np.int64]:
    answers: NDArray[np.int64] = predict(engine, split.images).argmax(axis=1)
    return answers
