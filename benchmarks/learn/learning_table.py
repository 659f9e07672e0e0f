"""Outcomes as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from gaps import Estimate
from learning_goals import Goal
from methods import MEDLOOP, NONE, ORACLE
from outcomes import Outcomes
from rich.table import Table


def lines(outcomes: Outcomes, goals: Sequence[Goal]) -> Iterator[Table | str]:
    """Return a table for each kind of drift and each drift, then the goals."""
    for scenario, drifts in outcomes.scenarios.items():
        yield accuracies(outcomes, scenario, drifts)
        if len(drifts) > 1:
            yield drift_by_drift(outcomes, scenario, drifts)
        if MEDLOOP in outcomes.methods and len(outcomes.methods) > 1:
            yield ahead(outcomes, scenario, drifts)
    if outcomes.journeys:
        yield eroded(outcomes)
    if outcomes.step_cost is not None:
        for name, milliseconds in outcomes.step_cost["milliseconds"].items():
            yield f"{name:60} {milliseconds:8.1f} ms"
    for goal in goals:
        yield goal_line(goal)


def accuracies(outcomes: Outcomes, scenario: str, drifts: list[str]) -> Table:
    """Return a row a method: new domain and share of the gap closed after each count, then the old domain."""
    counts = outcomes.counts(drifts)
    seeds = len(outcomes.seeds(drifts))
    caption = (
        f"balanced accuracy on the new domain in % ± half its 95 % interval over {seeds} seeds "
        "(share of the gap to the oracle closed); old: on the old domain at the end"
    )
    table = Table(title=f"{scenario}: {', '.join(drifts)}", caption=caption, box=None, title_justify="left")
    table.add_column("labels")
    for count in counts:
        table.add_column(str(count), justify="right")
    for column in ("old", "changed", "ms an update"):
        table.add_column(column, justify="right")
    for method in (NONE, *outcomes.methods, ORACLE):
        bound = method in (NONE, ORACLE)
        cells = [
            _percent(outcomes.accuracy(method, drifts, count, "new"))
            + ("" if bound else f" ({_share(outcomes.closed(method, drifts, count))})")
            for count in counts
        ]
        last = [_percent(outcomes.accuracy(method, drifts, counts[-1], name)) for name in ("old", "changed")]
        cost = "" if bound else f"{outcomes.milliseconds(method, drifts):.0f}"
        table.add_row(method, *cells, *last, cost)
    return table


def drift_by_drift(outcomes: Outcomes, scenario: str, drifts: list[str]) -> Table:
    """Return a row a drift: every method's accuracy on the new domain after the last count."""
    last = outcomes.counts(drifts)[-1]
    table = Table(title=f"{scenario}: after {last} labels", box=None, title_justify="left")
    table.add_column("drift")
    methods = (NONE, *outcomes.methods, ORACLE)
    for method in methods:
        table.add_column(method, justify="right")
    for drift in drifts:
        table.add_row(drift, *(_percent(outcomes.accuracy(name, [drift], last, "new")) for name in methods))
    return table


def ahead(outcomes: Outcomes, scenario: str, drifts: list[str]) -> Table:
    """Return a row a peer: medloop's lead on the new domain, drift by drift and seed by seed."""
    table = Table(
        title=f"{scenario}: medloop ahead of, points (behind where negative)", box=None, title_justify="left"
    )
    table.add_column("labels")
    counts = outcomes.counts(drifts)
    for count in counts:
        table.add_column(str(count), justify="right")
    for peer in outcomes.methods:
        if peer != MEDLOOP:
            cells = [_percent(outcomes.ahead(MEDLOOP, peer, drifts, count)) for count in counts]
            table.add_row(peer, *cells)
    return table


def eroded(outcomes: Outcomes) -> Table:
    """Return a row a method: balanced accuracy that each stop lost since it was learned, and what it has."""
    table = Table(
        title="ten drifts in a row: points lost since (and % at the end)", box=None, title_justify="left"
    )
    table.add_column("method")
    for point in outcomes.journeys[0]["points"]:
        table.add_column(point["domain"], justify="right")
    for method in dict.fromkeys(row["method"] for row in outcomes.journeys):
        lost, end = (figure.mean(axis=0) for figure in (outcomes.erosion(method), outcomes.ends(method)))
        cells = (f"{100 * less:+.1f} ({100 * left:.1f})" for less, left in zip(lost, end, strict=True))
        table.add_row(method, *cells)
    return table


def goal_line(goal: Goal) -> str:
    """Return a goal beside what was reached."""
    sign = "≥" if goal.at_least else "≤"
    missed = "" if goal.met else "  MISSED"
    scale, unit = (100, "%") if goal.unit == "share" else (1, goal.unit)
    return f"{goal.name:60} {scale * goal.value:8.1f} {unit:5} goal {sign} {scale * goal.bound:.1f}{missed}"


def _percent(figure: Estimate) -> str:
    reach = (figure.high - figure.low) / 2
    return f"{100 * figure.mean:.1f}" + (f"±{100 * reach:.1f}" if np.isfinite(reach) else "")


def _share(figure: Estimate) -> str:
    return f"{100 * figure.mean:.0f}" if np.isfinite(figure.mean) else "-"
