"""What one step takes at batch 16, beside Avalanche's EWC step in the same process, and the memory of it.

A step is one optimiser step on 16 images of the `ward` network under the data drift's strategy, from labels
to moved weights; an update is all that medloop does on a mini-batch: its step and its rehearsal.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from adapting import Exporter, Method
from drifts import STEP_COST, USUAL_HELD_OUT, every_drift
from jobs import Journal
from medloop_learner import medloop
from medloop_services.replay.settings import ScenarioName
from methods import AVALANCHE_EWC, MEDLOOP, AvalancheMissing, method_of
from problem import Problem, problem_of

STEP, UPDATE = "medloop step", "medloop update"
LABELS = 144
"""Nine updates, of which the first sets up."""

ROUNDS = 3
"""Each method learns the stream so often, in turn, so that all meet the same disturbances."""

ONE_STEP = {"rehearsal_steps": 0, "retention": 0.0}
"""Changes of the plan that leave, with nothing remembered, one optimiser step on the mini-batch alone."""


def measure(data: Path, journal: Journal) -> None:
    """Add a row: milliseconds of a step, an update and Avalanche's EWC step if installed; peak megabytes."""
    drift = next(iter(every_drift([USUAL_HELD_OUT])))
    problem = problem_of(drift, 0, data)
    problem = replace(problem, new=problem.new.select(np.arange(LABELS)))
    alone = replace(problem, old=problem.old.select(np.arange(0)))
    measured: dict[str, tuple[Problem, Method]] = {
        STEP: (alone, medloop(ONE_STEP)),
        UPDATE: (problem, method_of(MEDLOOP, ScenarioName.DATA_DRIFT)),
    }
    for each in measured.values():
        _update_times(*each)
    # Before Avalanche is imported, which would count as medloop's.
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with suppress(AvalancheMissing):
        measured[AVALANCHE_EWC] = problem, method_of(AVALANCHE_EWC, ScenarioName.DATA_DRIFT)
    times: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(ROUNDS):
        for name, each in measured.items():
            times[name] += _update_times(*each)
    row = {"drift": STEP_COST, "scenario": STEP_COST, "seed": 0, "method": MEDLOOP}
    row |= {
        "milliseconds": {name: 1e3 * statistics.median(found) for name, found in times.items()},
        "peak_megabytes": megabytes,
    }
    journal.add(row)


def _update_times(problem: Problem, method: Method) -> list[float]:
    """Return the processor's seconds of every update but the first, which also sets up."""
    watch = _Watch()
    method(problem, watch)
    return watch.seconds[1:]


class _Watch:
    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.clock, self.since = clock, clock()
        self.seconds: list[float] = []

    def __call__(self, _: Exporter) -> None:
        now = self.clock()
        self.seconds.append(now - self.since)
        self.since = self.clock()
