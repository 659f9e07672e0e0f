"""What a search for hyperparameters gains and costs: the same adaptations with and without one.

    python benchmarks/learn/measure_tuning.py            a table
    python benchmarks/learn/measure_tuning.py --json     the table on standard error, one JSON line a figure

A data drift on PneumoniaMNIST, as `medloop simulate` streams it. The search sees training studies only; both
models are measured on the test images, before and after the drift, which no part of either has seen. A seed
is a stream of its own: other images, another order, other noise.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from math import nan

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported

import numpy as np
from medloop_model.accuracy import balanced_accuracy
from medloop_model.calibration import expected_calibration_error
from medloop_model.training.pipeline import Candidate, PipelineSettings, auto_tuning_pipeline
from medloop_model.training.tuning import TuningSettings
from medloop_model.training.validation import answer
from medloop_schemas import MedloopError
from medloop_services.cli.options import tell
from medloop_services.model_choice import choose_model
from medloop_services.replay.dataset import load_dataset
from medloop_services.replay.scenario import Stream, build_scenario
from medloop_services.replay.settings import ScenarioName, ScenarioSettings
from medloop_services.replay.split import Split
from medloop_services.tuning import report_of
from scipy.stats import t as student


@dataclass(frozen=True)
class Adapted:
    """A candidate on the test images; accuracies are balanced, all in points."""

    new: float
    old: float
    new_calibration_error: float
    old_calibration_error: float
    seconds: float
    trials: int
    paid: bool

    @classmethod
    def of(cls, candidate: Candidate, stream: Stream) -> Adapted:
        def measured(test: Split) -> tuple[float, float]:
            assert candidate.package is not None
            said = answer(candidate.package, test.images)
            right = balanced_accuracy(said.argmax(axis=1), test.labels)
            return 100 * right, 100 * float(expected_calibration_error(said, test.labels)[0])

        new, old = measured(stream.new_test), measured(stream.old_test)
        tuned = candidate.evidence.tuned
        return cls(
            new=new[0],
            old=old[0],
            new_calibration_error=new[1],
            old_calibration_error=old[1],
            seconds=candidate.evidence.seconds,
            trials=len(tuned.trials) if tuned else 0,
            paid=tuned is not None and tuned.paid,
        )


@dataclass(frozen=True)
class Pair:
    """One stream's adaptation by the plan as it stands and by the one that was found."""

    seed: int
    plain: Adapted
    tuned: Adapted


def measure(arguments: argparse.Namespace, seed: int) -> Pair:
    dataset = load_dataset(arguments.data, announce=lambda line: None)
    stream = build_scenario(
        dataset, ScenarioName(arguments.scenario), ScenarioSettings(seed=seed, severity=arguments.severity)
    )
    choice = choose_model(stream, None, lambda line: None)
    report = report_of(stream, arguments.labels)

    def adapted(tuning: TuningSettings | None) -> Adapted:
        settings = PipelineSettings(tuning=tuning, seed=seed)
        # Seconds of the processor, so that a busy machine searches no less.
        candidate = auto_tuning_pipeline(
            report, choice.model, choice.teacher, settings, clock=time.process_time
        )
        return Adapted.of(candidate, stream)

    pair = Pair(seed, adapted(None), adapted(TuningSettings(arguments.seconds, arguments.trials, seed=seed)))
    taken = "taken" if pair.tuned.paid else "not taken"
    tell(
        f"seed {seed}: {pair.plain.new:.1f} → {pair.tuned.new:.1f} after {pair.tuned.trials} trials, {taken}"
    )
    return pair


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval, by Student's t over seeds."""
    if len(values) < 2:
        return values[0], nan, nan
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    margin = float(student.ppf(0.975, len(values) - 1)) * error
    mean = float(np.mean(values))
    return mean, mean - margin, mean + margin


FIELDS = {
    "new": "balanced accuracy, new",
    "old": "balanced accuracy, old",
    "new_calibration_error": "calibration error, new",
    "old_calibration_error": "calibration error, old",
    "seconds": "seconds of the processor",
}


def main() -> None:
    arguments = parsed()
    pairs = [measure(arguments, seed) for seed in range(arguments.seeds)]
    output = sys.stderr if arguments.json else sys.stdout
    print(f"{'':24} {'as it stands':>13} {'searched':>9}   difference (95 %)", file=output)
    for field, name in FIELDS.items():
        plain, tuned = ([getattr(side, field) for side in sides] for sides in _sides(pairs))
        mean, low, high = interval([b - a for a, b in zip(plain, tuned, strict=True)])
        unit = "s" if field == "seconds" else "points"
        gained = f"{mean:+.1f} ({low:+.1f} to {high:+.1f}) {unit}"
        print(f"{name:24} {np.mean(plain):13.1f} {np.mean(tuned):9.1f}   {gained}", file=output)
        if arguments.json:
            print(json.dumps(_figure(arguments, name, unit, (mean, low, high), float(np.mean(plain)))))
    trials = [pair.tuned.trials for pair in pairs]
    print(
        f"{len(pairs)} seeds, {min(trials)} to {max(trials)} trials, {arguments.labels} labels", file=output
    )


def _sides(pairs: list[Pair]) -> tuple[list[Adapted], list[Adapted]]:
    return [pair.plain for pair in pairs], [pair.tuned for pair in pairs]


def _figure(
    arguments: argparse.Namespace, name: str, unit: str, gain: tuple[float, float, float], plain: float
) -> dict[str, object]:
    mean, low, high = gain
    return {
        "name": f"search, {arguments.scenario}: {name}",
        "value": plain + mean,
        "unit": unit,
        "peer": "the plan as it stands",
        "peer_value": plain,
        "ratio": (plain + mean) / plain if plain else None,
        "low": low,
        "high": high,
        "limit": None,
        "goal": None,
        "met": True,
        "seed": 0,
        "n": arguments.seeds,
    }


def parsed() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="npz file; default: MEDLOOP_DATA's PneumoniaMNIST")
    parser.add_argument("--scenario", default="data-drift", choices=[name.value for name in ScenarioName])
    parser.add_argument("--severity", type=int, default=3, help="of the drift, 1 to 5 (default 3)")
    parser.add_argument("--labels", type=int, default=256, help="images labelled since the drift (256)")
    parser.add_argument("--seconds", type=float, default=60, help="a search may take (default 60)")
    parser.add_argument("--trials", type=int, default=40, help="at most (default 40)")
    parser.add_argument("--seeds", type=int, default=3, help="streams (default 3)")
    parser.add_argument("--json", action="store_true", help="one JSON line a figure on standard output")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except MedloopError as error:
        sys.exit(f"{error}")
