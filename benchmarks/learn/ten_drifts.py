"""Ten drifts in a row, out to another scanner and back, five times: does what was learned wear off?

Each adaptation starts from the model that the last one left, learns 256 labelled images of the domain at
hand and remembers 512 labelled images of all before, each domain and class as evenly as it can: the online
learner's rule, for every method.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from adapting import Exporter, Method
from drifts import CORRUPTIONS, JOURNEY, Drift
from jobs import Journal
from medloop_model.accuracy import balanced_accuracy
from medloop_model.checkpoint import ModelPackage
from medloop_model.engine import Engine
from medloop_model.training.eviction import kept
from medloop_services.replay.dataset import DEFAULT_FILES
from medloop_services.replay.settings import ScenarioName
from medloop_services.replay.split import Split, join
from medloop_services.report.evaluation import predict
from methods import method_of
from problem import REMEMBERED, Problem, problem_of

LABELS = 256
"""After which the loop publishes a candidate."""

SEVERITY = 3
HOME = "home"

LEG_SEEDS = 1000
"""Between the seeds of two legs, so that each shows a draw of its own."""


@dataclass(frozen=True)
class Stay:
    """What is shown at one stop of the journey: labelled images to learn from, and the domain's test."""

    domain: str
    shown: Split
    test: Split


def journey(seed: int, data: Path) -> tuple[Problem, list[Stay]]:
    """Return the problem that the first model comes from, and the ten stops."""
    stops, first = [], None
    for leg, corruption in enumerate(CORRUPTIONS):
        settings = {"corruption": corruption, "severity": SEVERITY}
        drift = Drift(
            f"{corruption} {SEVERITY}",
            ScenarioName.DATA_DRIFT,
            DEFAULT_FILES[ScenarioName.DATA_DRIFT],
            settings,
        )
        problem = problem_of(drift, LEG_SEEDS * leg + seed, data)
        first = first or problem
        stops.append(Stay(drift.name, _first(problem.new), problem.new_test))
        stops.append(Stay(HOME, _first(problem.old), problem.old_test))
    if first is None:
        raise ValueError("there is no corruption to go to")
    return first, stops


def travel(name: str, seed: int, data: Path, journal: Journal) -> None:
    """Add a row: of each stop its balanced accuracy right after it was learned, and at the end.

    Args:
        name: of a method.
        seed: of the streams, the noise and the learner.
        data: folder.
        journal: added to.
    """
    problem, stops = journey(seed, data)
    method = method_of(name, ScenarioName.DATA_DRIFT)
    package, seen, domains = problem.package, problem.old, (HOME,) * len(problem.old)
    after = []
    for number, stop in enumerate(stops):
        here = replace(
            problem,
            package=package,
            old=seen,
            old_domains=domains,
            new=stop.shown,
            changed_stream=np.ones(len(stop.shown), np.bool_),
        )
        package = _with_fisher(_learned(here, method), package)
        domains += (f"{number} {stop.domain}",) * len(stop.shown)
        seen = join([seen, stop.shown])
        places = kept(domains, seen.labels.tolist(), REMEMBERED)
        seen, domains = seen.select(np.array(places)), tuple(domains[place] for place in places)
        after.append(_accuracy(package, stop.test))
    points = [
        {"domain": stop.domain, "after": value, "end": _accuracy(package, stop.test)}
        for stop, value in zip(stops, after, strict=True)
    ]
    journal.add({"drift": JOURNEY, "scenario": JOURNEY, "seed": seed, "method": name, "points": points})


def _learned(problem: Problem, method: Method) -> ModelPackage:
    last: list[ModelPackage] = []
    method(problem, _LastExport(problem, last))
    return last[-1]


@dataclass
class _LastExport:
    """Takes the model after the last update; exporting after each would cost more than learning."""

    problem: Problem
    taken: list[ModelPackage]
    updates: int = 0

    def __call__(self, export: Exporter) -> None:
        self.updates += 1
        if self.updates == sum(1 for _ in self.problem.batches()):
            self.taken.append(export())


def _with_fisher(package: ModelPackage, before: ModelPackage) -> ModelPackage:
    """A peer's package has no Fisher information of its own; the last one's is still the old domain's."""
    return package if package.fisher else replace(package, fisher=before.fisher)


def _first(split: Split) -> Split:
    return split.select(np.arange(LABELS))


def _accuracy(package: ModelPackage, test: Split) -> float:
    answers = predict(Engine(package), test.images).argmax(axis=1)
    return balanced_accuracy(answers, test.labels)
