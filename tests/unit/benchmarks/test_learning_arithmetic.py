"""What `medloop bench learn` makes of accuracies: shares of a gap, intervals, pairs, what is left to do."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from drifts import every_drift
from gaps import estimate, gap_share, paired_difference
from jobs import Job, Journal, missing
from learning_goals import judged
from learning_table import lines
from outcomes import Outcomes, finite
from plot_learning import draw
from rich.console import Console
from scipy import stats
from write_document import document


def test_the_interval_is_students():
    values = [0.71, 0.80, 0.77, 0.69, 0.74]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))


def test_one_seed_has_no_interval():
    found = estimate([0.7])
    assert (found.mean, found.low, found.high) == (0.7, -math.inf, math.inf)


def test_the_interval_covers_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(0.8, 0.05, (2000, 5))
    covered = [each.low <= 0.8 <= each.high for each in map(estimate, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_a_gap_share_is_the_sum_of_the_gains_by_the_sum_of_the_gaps():
    none, oracle = np.array([[0.6, 0.8]]), np.array([[0.8, 0.9]])
    assert gap_share(none, np.array([[0.7, 0.8]]), oracle) == pytest.approx([1 / 3])
    assert gap_share(none, none, oracle) == pytest.approx([0])
    assert gap_share(none, oracle, oracle) == pytest.approx([1])


def test_a_drift_that_costs_nothing_weighs_nothing_but_its_loss():
    none, oracle = np.array([[0.6, 0.9]]), np.array([[0.8, 0.9]])
    assert gap_share(none, np.array([[0.8, 0.85]]), oracle) == pytest.approx([0.75])


def test_without_a_gap_there_is_no_share():
    even = np.array([[0.8]])
    assert np.isnan(gap_share(even, even, even)).all()


def test_a_lead_is_paired_over_drifts_and_seeds():
    peer = np.random.default_rng(1).random((5, 3))
    found = paired_difference(peer + 0.02, peer)
    assert (found.mean, found.low, found.high) == pytest.approx((0.02, 0.02, 0.02))


def test_a_run_that_was_killed_goes_on_behind_its_last_whole_row(tmp_path):
    drift = next(iter(every_drift([3])))
    journal = Journal(tmp_path / "runs" / "rows.jsonl")
    journal.mend()
    journal.add({"drift": drift.name, "seed": 0, "method": "none"})
    with journal.file.open("a") as file:
        file.write('{"drift": "scan')
    journal.mend()
    journal.add({"drift": drift.name, "seed": 1, "method": "head"})
    rows = journal.rows()
    assert [row["method"] for row in rows] == ["none", "head"]
    jobs = [Job(drift, seed, ("none", "head")) for seed in range(3)]
    assert missing(jobs, rows) == [
        Job(drift, 0, ("head",)),
        Job(drift, 1, ("none",)),
        Job(drift, 2, ("none", "head")),
    ]
    assert missing(jobs[:1], [*rows, {"drift": drift.name, "seed": 0, "method": "head"}]) == []


def _points(*values: float) -> list[dict[str, float]]:
    return [
        {"labels": labels, "changed_labels": labels, "new": value, "old": 0.9 - value / 100, "changed": value}
        for labels, value in zip((128, 512), values, strict=True)
    ]


def _rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for seed in range(3):
        for drift, shift in (("noise", 0.0), ("blur", 0.05)):
            for method, values in (
                ("none", (0.6, 0.6)),
                ("oracle", (0.8, 0.8)),
                ("medloop", (0.75, 0.8 + seed / 100)),
                ("head", (0.76, 0.65)),
            ):
                points = _points(*(value + shift for value in values))
                if method in ("none", "oracle"):
                    points = [points[0] | {"labels": 0, "changed_labels": 0}]
                what = {"drift": drift, "scenario": "data-drift", "seed": seed, "method": method}
                rows.append(what | {"seconds": 0.5, "updates": 32, "points": points})
        stops = [{"domain": "noise", "after": 0.8, "end": 0.75}, {"domain": "home", "after": 0.9, "end": 0.9}]
        journey = {"drift": "ten drifts in a row", "scenario": "ten drifts in a row", "points": stops}
        rows.append(journey | {"seed": seed, "method": "medloop"})
    cost = {"milliseconds": {"medloop step": 20.0, "avalanche-ewc": 30.0}, "peak_megabytes": 500.0}
    return [
        *rows,
        {"drift": "cost of a step", "scenario": "cost of a step", "seed": 0, "method": "medloop"} | cost,
    ]


def test_only_seeds_that_every_method_has_are_compared():
    rows = _rows()
    unfinished = next(r for r in rows if (r["drift"], r["seed"], r["method"]) == ("blur", 1, "head"))
    rows.remove(unfinished)
    outcomes = Outcomes(rows)
    assert outcomes.seeds(["noise"]) == [0, 1, 2]
    assert outcomes.seeds(["noise", "blur"]) == [0, 2]
    assert outcomes.values("medloop", ["noise", "blur"], 512, "new") == pytest.approx(
        np.array([[0.8, 0.85], [0.82, 0.87]])
    )


def test_goals_say_what_is_missed():
    goals = {goal.name: goal for goal in judged(Outcomes(_rows()))}
    early = goals["data drift: gap closed after 128 labels"]
    assert (early.value, early.met) == (pytest.approx(0.75), False)
    late = goals["data drift: gap closed after 512 labels"]
    assert (late.value, late.met) == (pytest.approx(1.05), True)
    assert not goals["ten drifts in a row: most lost of any domain since"].met
    assert goals["one step at batch 16, ms"].met
    assert not goals["Avalanche's EWC step, times medloop's"].met


def test_everything_is_printed_drawn_and_documented():
    outcomes = Outcomes(_rows())
    goals = judged(outcomes)
    console = Console(record=True, width=200)
    for line in lines(outcomes, goals):
        console.print(line)
    text = console.export_text()
    assert "75.0 % " in text
    assert "MISSED" in text
    figures = json.loads(
        json.dumps([finite(line) for line in (*outcomes.lines(), *(g.line() for g in goals))])
    )
    written = "\n".join(document(figures, figures))
    assert "| **medloop** | 77.5 ± 0.0 (75) | 83.5 ± 2.5 (105) |" in written
    assert written.count("| **medloop** | 77.5 ± 0.0 (75) |") == 2, "and among what was tried"
    assert "Ahead of medloop: `head` at 128 (1.0 points, beyond its interval)." in written
    assert "**MISSED**" in written
    curves, trade = draw(figures).axes
    assert {line.get_label() for line in curves.lines} == {"none", "medloop", "head", "oracle"}
    assert len(trade.lines) == 4
