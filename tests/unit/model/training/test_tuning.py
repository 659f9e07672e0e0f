from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from medloop_model.errors import CorruptHistory, ShapeError
from medloop_model.training.freeze import DISTIL_ALL, SHALLOW_EWC
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.strategies import article_plan, measured_plan
from medloop_model.training.tuning import (
    Scores,
    Trial,
    TuningSettings,
    brier_scores,
    keep,
    read_history,
    searched,
    tune,
)
from scipy.stats import norm

PLAN = measured_plan(SHALLOW_EWC, ("a", "b"))
BEST_RATE = 1e-2


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much each time it is read."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += seconds
        return now

    return clock


def bowl(plan: TrainingPlan) -> Iterator[Scores]:
    """A score that is best, 0, at one learning rate, and approached in four mini-batches."""
    distance = abs(math.log(plan.learning_rate / BEST_RATE))
    for batch in range(4):
        yield np.full(9, -distance - 1 / (batch + 1))


def test_it_finds_what_is_better_and_never_worse() -> None:
    tuned = tune(PLAN, bowl, TuningSettings(trials=30), ticking(0))
    assert len(tuned.trials) == 30
    assert tuned.gain_lower > 1
    assert abs(math.log(tuned.plan.learning_rate / BEST_RATE)) < 0.5
    assert tuned.plan == replace(PLAN, **tuned.best.parameters)


def test_the_plan_as_it_stands_is_the_first_trial_and_stays_if_nothing_is_better() -> None:
    tuned = tune(
        PLAN, lambda plan: iter([np.full(4, float(plan == PLAN))]), TuningSettings(trials=8), ticking(0)
    )
    assert tuned.trials[0].parameters == {name: getattr(PLAN, name) for name in searched(PLAN)}
    assert tuned.plan == PLAN
    assert tuned.gain_lower == 0
    assert not tuned.paid


def test_what_is_better_by_chance_does_not_take_the_plans_place() -> None:
    """Each trial is better than the plan on as many images as it is worse on, or nearly."""

    def luck(plan: TrainingPlan) -> Iterator[Scores]:
        seed = int(plan.learning_rate * 1e7)
        yield np.random.default_rng(seed).normal(size=40)

    tuned = tune(PLAN, luck, TuningSettings(trials=6), ticking(0))
    assert tuned.best.score > tuned.trials[0].score
    assert tuned.gain_lower < 0
    assert tuned.plan == PLAN


def test_the_bound_is_that_of_a_paired_difference() -> None:
    base = np.random.default_rng(0).normal(size=50)
    gained = np.random.default_rng(1).normal(1.0, 0.5, size=50)

    def better(plan: TrainingPlan) -> Iterator[Scores]:
        yield base if plan == PLAN else base + gained

    tuned = tune(PLAN, better, TuningSettings(trials=2, confidence=0.9), ticking(0))
    assert tuned.gain_lower == pytest.approx(
        gained.mean() - norm.ppf(0.9) * gained.std(ddof=1) / 50**0.5, rel=1e-6
    )
    assert tuned.paid


def test_of_equals_the_plan_as_it_stands_is_kept() -> None:
    assert tune(PLAN, lambda plan: iter([np.ones(4)]), TuningSettings(trials=5), ticking(0)).plan == PLAN


def test_the_same_scores_and_times_find_the_same() -> None:
    one, other = (tune(PLAN, bowl, TuningSettings(trials=12, seed=3), ticking(0)) for _ in range(2))
    assert one == other
    assert tune(PLAN, bowl, TuningSettings(trials=12, seed=4), ticking(0)) != one


def test_it_stops_when_the_seconds_are_over() -> None:
    tuned = tune(PLAN, bowl, TuningSettings(seconds=60, trials=100), ticking(10))
    assert len(tuned.trials) == 6
    assert tuned.seconds == 70


def test_even_without_time_the_plan_itself_is_scored() -> None:
    assert len(tune(PLAN, bowl, TuningSettings(seconds=1, trials=100), ticking(10)).trials) == 1


def test_bad_trials_are_given_up_early_and_never_chosen() -> None:
    trained: list[int] = []

    def counted(plan: TrainingPlan) -> Iterator[Scores]:
        trained.append(0)
        for score in bowl(plan):
            trained[-1] += 1
            yield score

    tuned = tune(PLAN, counted, TuningSettings(trials=30), ticking(0))
    pruned = [trial.pruned for trial in tuned.trials]
    assert 5 < sum(pruned) < 25
    assert not any(pruned[:4])
    assert {count for count, gone in zip(trained, pruned, strict=True) if gone} == {2, 3} & set(trained)
    assert not tuned.best.pruned


def test_trials_of_the_past_are_tried_next() -> None:
    past = [{**{name: getattr(PLAN, name) for name in searched(PLAN)}, "learning_rate": BEST_RATE}]
    told: list[Trial] = []
    tuned = tune(PLAN, bowl, TuningSettings(trials=3), ticking(0), past=past, progress=told.append)
    assert tuned.trials[1].parameters == past[0]
    assert tuned.plan.learning_rate == BEST_RATE
    assert told == list(tuned.trials)


def test_a_past_trial_of_other_parameters_is_passed_over() -> None:
    plain = tune(PLAN, bowl, TuningSettings(trials=3), ticking(0))
    assert tune(PLAN, bowl, TuningSettings(trials=3), ticking(0), past=[{"alpha": 0.5}]) == plain


def test_what_a_device_can_do_in_time_is_no_matter_of_score() -> None:
    """Neither the search nor a trial of the past goes beyond it."""

    def diligent(plan: TrainingPlan) -> Iterator[Scores]:
        yield np.full(4, float(plan.rehearsal_steps))

    past = [{**{name: getattr(PLAN, name) for name in searched(PLAN)}, "rehearsal_steps": 12}]
    settings = TuningSettings(trials=8, rehearsal_steps=6)
    tried = [
        trial.parameters["rehearsal_steps"]
        for trial in tune(PLAN, diligent, settings, ticking(0), past=past).trials
    ]
    assert max(tried) <= 6


def test_where_nothing_is_rehearsed_no_rehearsal_is_searched() -> None:
    article = article_plan(SHALLOW_EWC, ("a", "b"))
    assert set(searched(article)) == {"learning_rate", "ewc_lambda"}


def test_only_what_a_plan_uses_is_searched() -> None:
    always = {"learning_rate", "rehearsal_steps", "rehearsal_batch"}
    assert set(searched(PLAN)) == always
    assert set(searched(replace(PLAN, ewc_lambda=0.1))) == always | {"ewc_lambda"}
    distilling = replace(measured_plan(DISTIL_ALL, ("a", "b")), alpha=0.7)
    assert set(searched(distilling)) == always | {"alpha", "temperature"}


def test_the_brier_score_is_a_mean_over_classes() -> None:
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.8, 0.2]])
    scores = brier_scores(probabilities, np.array([0, 0, 1]))
    assert -scores.mean() == pytest.approx(((0 + 0.5) / 2 + (0.8**2 + 0.8**2)) / 2)
    with pytest.raises(ShapeError, match="0 labels"):
        brier_scores(np.zeros((0, 2)), np.zeros(0, np.int64))


def test_what_paid_is_kept_for_the_next_search(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "tuning.json"
    assert read_history(path) == ()
    for trials in (20, 8):
        keep(path, tune(PLAN, bowl, TuningSettings(trials=trials), ticking(0)))
    past = read_history(path)
    assert [one.strategy for one in past] == [SHALLOW_EWC] * 2
    assert past[0].gain_lower >= past[1].gain_lower > 0
    again = tune(PLAN, bowl, TuningSettings(trials=3), ticking(0), past=[past[0].parameters])
    assert again.gain_lower == pytest.approx(past[0].gain_lower)


def test_what_did_not_pay_is_not_kept(tmp_path: Path) -> None:
    keep(
        tmp_path / "tuning.json",
        tune(PLAN, lambda plan: iter([np.ones(4)]), TuningSettings(trials=2), ticking(0)),
    )
    assert not (tmp_path / "tuning.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        '[{"strategy": "x", "parameters": {"learning_rate": "fast"}, "gain_lower": 1}]',
        "",
        "[1]",
        '[{"strategy": "x"}]',
        "not json",
    ],
)
def test_a_history_that_can_not_be_read_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(text)
    with pytest.raises(CorruptHistory, match=r"tuning\.json.*remove the file"):
        read_history(path)
