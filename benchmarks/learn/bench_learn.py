"""How fast and how lastingly a model learns a drift, beside its peers and an oracle, on the same labels.

    python benchmarks/learn/bench_learn.py --quick      four drifts, two seeds: minutes
    python benchmarks/learn/bench_learn.py --json       the table on standard error, one JSON line a figure

Every method is given the same deployed model, the same labelled images in the same order, one mini-batch of
16 after the other, and the same remembered images from before the change; its model is judged on both
domains' test images, as it would be served, after 16, 32, … 512 labels. What is done is kept in the output
folder, and a run that was cut short goes on where it was: after a change of the code name another folder. A
`medloop:name=value,…` among the methods tries another plan.
"""

from __future__ import annotations

import single_thread  # noqa: F401  # isort: skip  (above whatever imports numpy)

import argparse
import fnmatch
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cost_beside_avalanche
import ten_drifts
from drifts import JOURNEY, QUICK, STEP_COST, USUAL_HELD_OUT, every_drift
from jobs import Job, Journal, missing, over_processes, run_job
from learning_goals import Goal, judged
from learning_table import lines
from medloop_schemas import MedloopError
from medloop_services.bus.context import load_settings
from medloop_services.replay.dataset import DataSettings
from medloop_services.replay.errors import DatasetError
from methods import METHODS, NONE, ORACLE, method_of, usual_methods
from oracles import ORACLES, oracle_of
from outcomes import Outcomes, finite
from problem import prepare_model
from rich.console import Console

SEEDS, QUICK_SEEDS = 5, 2
CLASSES = 6
"""Of MedNIST, each held out in turn."""


def main() -> None:
    arguments = parsed()
    data = arguments.data or load_settings(DataSettings).data
    if data is None or not data.is_dir():
        raise DatasetError(
            "the experiment needs a folder with medmnist/, mednist/ and wbc/; set MEDLOOP_DATA"
        )
    conditions = arguments.conditions or (QUICK if arguments.quick else ("*",))
    drifts = list(every_drift(arguments.held_out))
    names = chosen([*(drift.name for drift in drifts), JOURNEY, STEP_COST], conditions)
    seeds = range(arguments.seeds or (QUICK_SEEDS if arguments.quick else SEEDS))
    learning = [name for name in arguments.methods if name not in (NONE, ORACLE)]
    for name in learning:
        method_of(name, drifts[0].scenario)  # a wrong name is told before hours of work
    journal = Journal(arguments.out / "rows.jsonl")
    journal.mend()
    methods = tuple(dict.fromkeys((NONE, ORACLE, *learning)))
    jobs = [Job(drift, seed, methods) for drift in drifts if drift.name in names for seed in seeds]
    run_drifts(missing(jobs, journal.rows()), data, journal, arguments.workers)
    if JOURNEY in names:
        run_journeys(learning, seeds, data, journal, arguments.workers)
    if STEP_COST in names and not any(row["drift"] == STEP_COST for row in journal.rows()):
        # Alone on the machine.
        over_processes(STEP_COST, cost_beside_avalanche.measure, [(data, journal)], 1)
    wanted = (row for row in journal.rows() if row["drift"] in names and row["seed"] in seeds)
    outcomes = Outcomes([row for row in wanted if row["drift"] == STEP_COST or row["method"] in methods])
    report(outcomes, judged(outcomes), as_json=arguments.json)


def run_drifts(jobs: list[Job], data: Path, journal: Journal, workers: int) -> None:
    """Do what is missing of the drifts: models, then oracles, then what is judged beside them."""
    models = {(job.drift.file, str(job.drift.settings.get("held_out"))): job.drift for job in jobs}
    over_processes("models", prepare_model, [(drift, data) for drift in models.values()], workers)
    wanted = {(job.drift.name, job.seed % ORACLES): job for job in jobs if ORACLE in job.methods}
    over_processes("oracles", oracle_of, [(job.drift, job.seed, data) for job in wanted.values()], workers)
    # The last drifts are the slowest: begun first, none is waited for alone.
    over_processes("drifts", run_job, [(job, data, journal) for job in reversed(jobs)], workers)


def run_journeys(
    methods: Sequence[str], seeds: Sequence[int], data: Path, journal: Journal, workers: int
) -> None:
    """Do what is missing of ten drifts in a row."""
    done = {(row["seed"], row["method"]) for row in journal.rows() if row["drift"] == JOURNEY}
    calls = [(name, seed, data, journal) for seed in seeds for name in methods if (seed, name) not in done]
    over_processes(JOURNEY, ten_drifts.travel, calls, workers)


def report(outcomes: Outcomes, goals: list[Goal], *, as_json: bool) -> None:
    """Print the tables, and the figures as JSON lines where they are asked for."""
    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else 160)
    for line in lines(outcomes, goals):
        console.print(line)
    if as_json:
        for figure in (*outcomes.lines(), *(goal.line() for goal in goals)):
            print(json.dumps(finite(figure)))


def chosen(names: Sequence[str], wanted: Sequence[str]) -> set[str]:
    """Return the names that others, in which * and ? stand for anything, choose.

    Raises:
        DatasetError: one chooses none.
    """
    found = {pattern: fnmatch.filter(names, pattern) for pattern in wanted}
    for pattern, matches in found.items():
        if not matches:
            raise DatasetError(f"no condition is called {pattern!r}; there are {', '.join(names)}")
    return {name for matches in found.values() for name in matches}


def parsed() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of data sets (MEDLOOP_DATA)")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}; {QUICK_SEEDS} seeds")
    parser.add_argument("--conditions", nargs="+", help="names of drifts, * and ? allowed (all)")
    parser.add_argument(
        "--methods", nargs="+", default=usual_methods(), help=f"of {', '.join(METHODS)} (all installed)"
    )
    parser.add_argument("--seeds", type=int, help=f"how many ({SEEDS})")
    parser.add_argument(
        "--held-out",
        nargs="+",
        type=int,
        default=[USUAL_HELD_OUT],
        choices=range(CLASSES),
        help=f"classes of MedNIST that arrive later ({USUAL_HELD_OUT}); each needs a model of its own",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one a core)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/learn"), help="folder of what is done (runs/learn)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line a figure on standard output")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except (MedloopError, ValueError) as error:
        sys.exit(f"{error}")
