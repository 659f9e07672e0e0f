"""Hyperparameters by trial: Optuna's TPE with median pruning, within seconds, on studies kept apart for it.

The plan as it stands is the first trial, and the best trials of the past are the next ones; so what is found
is never worse than it on the images that decide. These decide on few dozens of images: by the Brier score,
since accuracy takes few values there and log loss hangs on single images.

Off unless asked for: `benchmarks/learn/bench_tuning.py` shows its gain and its cost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from medloop_model.errors import CorruptHistory, ShapeError
from medloop_model.training.plan import TrainingPlan

Parameters = Mapping[str, float | int]
"""Values of a plan's fields, by name."""

Trained = Callable[[TrainingPlan], Iterator[float]]
"""Trains by a plan and says after each mini-batch how good the model is, higher being better."""

_PAST_TRIED = 3
_PAST_KEPT = 32


@dataclass(frozen=True)
class TuningSettings:
    """How long is searched.

    Args:
        seconds: by the clock; a trial that has begun is finished.
        trials: at most, the plan as it stands among them.
        startup_trials: before TPE learns from trials and bad ones are pruned.
        seed: of the sampler.
    """

    seconds: float = 60.0
    trials: int = 40
    startup_trials: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """One set of parameters.

    Args:
        parameters: what was tried.
        score: after the last mini-batch that it was trained on.
        pruned: whether it was given up before the last one.
    """

    parameters: Parameters
    score: float
    pruned: bool


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Args:
        plan: the best one.
        trials: all of them; the first one is the plan as it stood.
        seconds: it took.
    """

    plan: TrainingPlan
    trials: tuple[Trial, ...]
    seconds: float

    @property
    def best(self) -> Trial:
        """The trial with the highest score of those not given up; the first of equals."""
        return max((trial for trial in self.trials if not trial.pruned), key=lambda trial: trial.score)

    @property
    def gain(self) -> float:
        """How much better than the plan as it stood, in units of the score."""
        return self.best.score - self.trials[0].score


def tune(
    plan: TrainingPlan,
    train: Trained,
    settings: TuningSettings,
    clock: Callable[[], float],
    *,
    past: Sequence[Parameters] = (),
    progress: Callable[[Trial], None] = lambda trial: None,
) -> Tuned:
    """Search for a better plan.

    Args:
        plan: as it stands.
        train: is asked for each trial.
        settings: how long.
        clock: seconds; only differences count.
        past: parameters found before, best first; a few are tried before the search begins.
        progress: told of each trial when it ends.

    Returns:
        The same for the same scores and the same times of the clock.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started = clock()
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=settings.startup_trials, seed=settings.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=settings.startup_trials, n_warmup_steps=1),
    )
    study.enqueue_trial(_of(plan, searched(plan)))
    for parameters in past[:_PAST_TRIED]:
        if set(parameters) == set(searched(plan)):
            study.enqueue_trial(dict(parameters), skip_if_exists=True)
    trials: list[Trial] = []
    while len(trials) < settings.trials and (not trials or clock() - started < settings.seconds):
        asked = study.ask(searched(plan))
        score, pruned = _scored(asked, train(replace(plan, **asked.params)))
        if pruned:
            study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(asked, score)
        trials.append(Trial(dict(asked.params), score, pruned))
        progress(trials[-1])
    found = Tuned(plan, tuple(trials), clock() - started)
    return replace(found, plan=replace(plan, **dict[str, Any](found.best.parameters)))


def searched(plan: TrainingPlan) -> dict[str, optuna.distributions.BaseDistribution]:
    """What is searched of a plan, and between which bounds: what it does not use is left alone."""
    distributions = optuna.distributions
    found: dict[str, optuna.distributions.BaseDistribution] = {
        "learning_rate": distributions.FloatDistribution(1e-4, 3e-2, log=True),
        "rehearsal_steps": distributions.IntDistribution(1, max(12, plan.rehearsal_steps)),
        "rehearsal_batch": distributions.IntDistribution(8, 32, step=4),
    }
    if plan.ewc_lambda:
        found["ewc_lambda"] = distributions.FloatDistribution(1e-3, 10.0, log=True)
    if plan.alpha < 1:
        found["alpha"] = distributions.FloatDistribution(0.3, 1.0)
        found["temperature"] = distributions.FloatDistribution(1.0, 5.0)
    return found


def _of(plan: TrainingPlan, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in names}


def _scored(asked: optuna.trial.Trial, scores: Iterator[float]) -> tuple[float, bool]:
    """The last score, and whether the trial was given up before the end."""
    score = float("-inf")
    for step, score in enumerate(scores):
        asked.report(score, step)
        if asked.should_prune():
            return score, True
    return score, False


def brier_score(probabilities_BN: NDArray[np.floating], labels_B: NDArray[np.integer]) -> float:
    """Mean over classes of the mean squared distance of answers from the truth, 0 (best) to 2 (Brier, 1950).

    Args:
        probabilities_BN: (B, N), each row sums to 1.
        labels_B: (B,) true classes, of N.

    Raises:
        ShapeError: no label, or not one a row.
    """
    if not len(labels_B) or len(probabilities_BN) != len(labels_B):
        raise ShapeError(f"{len(labels_B)} labels don't fit answers {probabilities_BN.shape}")
    truth_BN = np.eye(probabilities_BN.shape[1])[labels_B]
    distance_B = ((probabilities_BN - truth_BN) ** 2).sum(axis=1)
    return float(np.mean([distance_B[labels_B == label].mean() for label in np.unique(labels_B)]))


@dataclass(frozen=True)
class Past:
    """One search that paid: what it was for and what it found."""

    strategy: str
    parameters: Parameters
    gain: float


def read_history(path: Path) -> tuple[Past, ...]:
    """What was found before, the best first; nothing where there is no file.

    Raises:
        CorruptHistory: the file is no list of past searches.
    """
    if not path.exists():
        return ()
    try:
        past = [
            Past(one["strategy"], dict(one["parameters"]), float(one["gain"]))
            for one in json.loads(path.read_text())
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptHistory(path, str(error)) from error
    return tuple(sorted(past, key=lambda one: -one.gain))


def keep(path: Path, tuned: Tuned) -> None:
    """Add what was found to the file of past searches, if it is better than the plan was.

    Raises:
        CorruptHistory: the file is there and can't be read.
    """
    if tuned.gain <= 0:
        return
    found = Past(tuned.plan.strategy, tuned.best.parameters, tuned.gain)
    best = sorted((*read_history(path), found), key=lambda one: -one.gain)[:_PAST_KEPT]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps([asdict(one) for one in best], indent=1, sort_keys=True) + "\n")
    temporary.replace(path)
