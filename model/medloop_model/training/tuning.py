"""Hyperparameters by trial: Optuna's TPE with median pruning, within seconds, on studies kept apart for it.

The plan as it stands is the first trial, and the best trials of the past are the next ones. A few dozens of
images decide: by the Brier score, since accuracy takes few values there and log loss hangs on single images.
The best of many trials owes its place to chance too; so it takes the plan's place only where it is surely
better, image by image, and what was measured to work stays elsewhere.

Off unless asked for: `benchmarks/learn/measure_tuning.py` shows its gain and its cost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from medloop_model.errors import CorruptHistory, ShapeError
from medloop_model.training.plan import TrainingPlan

Parameters = Mapping[str, float | int]
"""Values of a plan's fields, by name."""

Scores = NDArray[np.float64]
"""How good a model is on each image that decides, higher being better; their mean is its score."""

Trained = Callable[[TrainingPlan], Iterator[Scores]]
"""Trains by a plan and gives the scores after each mini-batch, of the same images each time."""

Space = dict[str, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution]
"""Bounds of what is searched, by name."""

_PAST_TRIED = 3
_PAST_KEPT = 32


@dataclass(frozen=True)
class TuningSettings:
    """How long is searched.

    Args:
        seconds: by the clock; a trial that has begun is finished.
        trials: at most, the plan as it stands among them.
        rehearsal_steps: tried at most, where the plan as it stands has not more.
        startup_trials: before TPE learns from trials and bad ones are pruned.
        confidence: one-sided, of the best trial's being better than the plan as it stands.
        seed: of the sampler.
    """

    seconds: float = 60.0
    trials: int = 40
    rehearsal_steps: int = 12
    startup_trials: int = 4
    confidence: float = 0.95
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
        plan: the best one, or the one that stood where that is not surely better.
        trials: all of them; the first one is the plan as it stood.
        gain_lower: lower bound of how much better the best one is, in units of the score.
        seconds: it took.
    """

    plan: TrainingPlan
    trials: tuple[Trial, ...]
    gain_lower: float
    seconds: float

    @property
    def best(self) -> Trial:
        """The trial with the highest score of those not given up; the first of equals."""
        return _best(self.trials)

    @property
    def paid(self) -> bool:
        """Whether the best trial took the plan's place."""
        return self.gain_lower > 0


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
    space = searched(plan, settings.rehearsal_steps)
    study.enqueue_trial(_of(plan, space))
    for parameters in past[:_PAST_TRIED]:
        if _within(space, parameters):
            study.enqueue_trial(dict(parameters), skip_if_exists=True)
    trials: list[Trial] = []
    scores: list[Scores] = []
    while len(trials) < settings.trials and (not trials or clock() - started < settings.seconds):
        asked = study.ask(dict(space))
        last, pruned = _scored(asked, train(replace(plan, **asked.params)))
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        study.tell(asked, None if pruned else float(last.mean()), state)
        trials.append(Trial(dict(asked.params), float(last.mean()), pruned))
        scores.append(last)
        progress(trials[-1])
    best = _best(trials)
    lower = _lower_bound(scores[trials.index(best)] - scores[0], settings.confidence)
    found = replace(plan, **dict[str, Any](best.parameters)) if lower > 0 else plan
    return Tuned(found, tuple(trials), lower, clock() - started)


def _best(trials: Sequence[Trial]) -> Trial:
    return max((trial for trial in trials if not trial.pruned), key=lambda trial: trial.score)


def _lower_bound(differences: Scores, confidence: float) -> float:
    """One-sided lower bound of a mean of independent differences, by the normal distribution."""
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return float(differences.mean()) - NormalDist().inv_cdf(confidence) * error


def searched(plan: TrainingPlan, most_steps: int = TuningSettings.rehearsal_steps) -> Space:
    """What is searched of a plan, and between which bounds: what it does not use is left alone.

    Args:
        plan: as it stands.
        most_steps: of rehearsal, where the plan has not more.
    """
    distributions = optuna.distributions
    found: Space = {"learning_rate": distributions.FloatDistribution(1e-4, 3e-2, log=True)}
    if plan.rehearsal_steps:
        found["rehearsal_steps"] = distributions.IntDistribution(1, max(most_steps, plan.rehearsal_steps))
    if plan.rehearsal_batch:
        found["rehearsal_batch"] = distributions.IntDistribution(8, 32, step=4)
    if plan.ewc_lambda:
        found["ewc_lambda"] = distributions.FloatDistribution(1e-3, 10.0, log=True)
    if plan.alpha < 1:
        found["alpha"] = distributions.FloatDistribution(0.3, 1.0)
        found["temperature"] = distributions.FloatDistribution(1.0, 5.0)
    return found


def _within(space: Space, parameters: Parameters) -> bool:
    """Whether parameters are those of a search and within its bounds, which Optuna would pass over."""
    return set(parameters) == set(space) and all(
        bounds.low <= parameters[name] <= bounds.high for name, bounds in space.items()
    )


def _of(plan: TrainingPlan, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in names}


def _scored(asked: optuna.trial.Trial, scores: Iterator[Scores]) -> tuple[Scores, bool]:
    """The last scores, and whether the trial was given up before the end."""
    last = np.zeros(0)
    for step, last in enumerate(scores):
        asked.report(float(last.mean()), step)
        if asked.should_prune():
            return last, True
    return last, False


def brier_scores(probabilities_BN: NDArray[np.floating], labels_B: NDArray[np.integer]) -> Scores:
    """Each image's squared distance of the answer from the truth, negative (B,) (Brier, 1950).

    Images are weighted so that every class counts the same in their mean, which is 0 at best and −2 at worst.

    Args:
        probabilities_BN: each row sums to 1.
        labels_B: true classes, of N.

    Raises:
        ShapeError: no label, or not one a row.
    """
    if not len(labels_B) or len(probabilities_BN) != len(labels_B):
        raise ShapeError(f"{len(labels_B)} labels don't fit answers {probabilities_BN.shape}")
    truth_BN = np.eye(probabilities_BN.shape[1])[labels_B]
    counts_N = np.bincount(labels_B)
    weight_B = len(labels_B) / (np.count_nonzero(counts_N) * counts_N[labels_B])
    scores_B: Scores = -weight_B * ((probabilities_BN - truth_BN) ** 2).sum(axis=1)
    return scores_B


@dataclass(frozen=True)
class Past:
    """One search that paid: what it was for and what it found."""

    strategy: str
    parameters: Parameters
    gain_lower: float


def read_history(path: Path) -> tuple[Past, ...]:
    """What was found before, the best first; nothing where there is no file.

    Raises:
        CorruptHistory: the file is no list of past searches.
    """
    if not path.exists():
        return ()
    try:
        past = [
            Past(one["strategy"], _numbers(one["parameters"]), float(one["gain_lower"]))
            for one in json.loads(path.read_text())
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptHistory(path, str(error)) from error
    return tuple(sorted(past, key=lambda one: -one.gain_lower))


def _numbers(parameters: Any) -> Parameters:
    for name, value in dict(parameters).items():
        if not isinstance(value, int | float):
            raise TypeError(f"{name} is {value!r}, no number")
    return dict(parameters)


def keep(path: Path, tuned: Tuned) -> None:
    """Add what was found to the file of past searches, if it took the plan's place.

    Raises:
        CorruptHistory: the file is there and can't be read.
    """
    if not tuned.paid:
        return
    found = Past(tuned.plan.strategy, tuned.best.parameters, tuned.gain_lower)
    best = sorted((*read_history(path), found), key=lambda one: -one.gain_lower)[:_PAST_KEPT]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps([asdict(one) for one in best], indent=1, sort_keys=True) + "\n")
    temporary.replace(path)
