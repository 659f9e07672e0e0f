"""Runs independent pieces of the experiment over processes; what is done already is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from adapting import adapt, judged
from drifts import Drift
from methods import NONE, ORACLE, method_of
from oracles import oracle_of, unadapted
from problem import Problem, problem_of
from rich.console import Console
from rich.progress import track

Result = TypeVar("Result")

Row = dict[str, Any]
"""What one method did with one drift and seed."""


@dataclass(frozen=True)
class Job:
    """What one process does in one go: methods that share a drift and a seed, and so their images."""

    drift: Drift
    seed: int
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Journal:
    """The file of what is done, one JSON line a row; a killed run goes on behind its last whole line.

    Attributes:
        file: its folder is made where it is missing.
    """

    file: Path

    def rows(self) -> list[Row]:
        """Return every whole line."""
        if not self.file.is_file():
            return []
        lines = self.file.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def mend(self) -> None:
        """Cut off a last line that a killed process has not finished."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = self.file.read_text() if self.file.is_file() else ""
        self.file.write_text(text[: text.rfind("\n") + 1])

    def add(self, row: Row) -> None:
        """Write a row behind the others, in one go: several processes write."""
        with self.file.open("ab", buffering=0) as file:
            file.write(json.dumps(row).encode() + b"\n")


def missing(jobs: Iterable[Job], rows: Sequence[Row]) -> list[Job]:
    """Return jobs without the methods that are done, and none without a method."""
    done = {(row["drift"], row["seed"], row["method"]) for row in rows}
    left = []
    for job in jobs:
        methods = tuple(name for name in job.methods if (job.drift.name, job.seed, name) not in done)
        if methods:
            left.append(Job(job.drift, job.seed, methods))
    return left


def run_job(job: Job, data: Path, journal: Journal) -> None:
    """Add a row a method."""
    problem = problem_of(job.drift, job.seed, data)
    for method in job.methods:
        what = {"drift": job.drift.name, "scenario": job.drift.scenario.value, "seed": job.seed}
        journal.add(what | {"method": method} | _measured(problem, method, data))


def over_processes(
    what: str, function: Callable[..., Result], calls: Sequence[tuple[Any, ...]], workers: int
) -> list[Result]:
    """Return a function's results in the order in which they come, with a progress bar on standard error.

    Args:
        what: for the bar.
        function: can be imported by name.
        calls: arguments of each call; long ones first fill the processes best.
        workers: processes.
    """
    if not calls:
        return []
    # A fresh process each: a fork would inherit the threads of torch half alive.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *call) for call in calls]
        try:
            finished = track(as_completed(futures), what, total=len(futures), console=Console(stderr=True))
            return [future.result() for future in finished]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _measured(problem: Problem, method: str, data: Path) -> Row:
    if method in (NONE, ORACLE):
        package = unadapted(problem) if method == NONE else oracle_of(problem.drift, problem.seed, data)
        return {"seconds": 0.0, "updates": 0, "points": [asdict(judged(problem, package, 0))]}
    judge = adapt(problem, method_of(method, problem.drift.scenario))
    return {
        "seconds": round(judge.seconds, 3),
        "updates": sum(1 for _ in problem.batches()),
        "points": [asdict(point) for point in judge.points],
    }
