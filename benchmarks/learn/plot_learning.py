"""Pictures of `medloop bench learn --json`: accuracy against labelled images, and old against new.

medloop bench learn --json figures.json
python benchmarks/learn/plot_learning.py figures.json docs/learn.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows = list[dict[str, Any]]

MEDLOOP, NONE, ORACLE = "medloop", "none", "oracle"
OURS, BOUND = "#1565c0", "#37474f"
PEERS = ("#8d6e63", "#bcaaa4", "#ef6c00", "#7cb342", "#558b2f", "#ab47bc", "#c62828", "#e57373")
TITLES = {
    "data-drift": "another scanner",
    "site-change": "another laboratory",
    "concept-drift": "another label policy",
    "new-class": "a new class",
}
CHOSEN_LABELS = 256
"""Shown in the picture of old against new; after fewer where fewer were learned."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", type=Path, help="what `medloop bench learn --json` wrote")
    parser.add_argument("picture", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    figure = draw(json.loads(arguments.figures.read_text()))
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.picture, dpi=110)


def draw(figures: Rows) -> Figure:
    """Return a column for each kind of drift: above what labels are worth, below old against new."""
    rows = whole_scenarios(figures)
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    colours = {MEDLOOP: OURS, NONE: BOUND, ORACLE: BOUND}
    colours |= dict(zip([name for name in methods if name not in colours], PEERS * 2, strict=False))
    picture = Figure(figsize=(3.6 * len(scenarios) + 1.4, 7.2), layout="constrained")
    grid = picture.subplots(2, len(scenarios), squeeze=False)
    for column, scenario in enumerate(scenarios):
        part = [row for row in rows if row["scenario"] == scenario]
        curves, trade = grid[0][column], grid[1][column]
        curves.set_title(TITLES.get(scenario, scenario), loc="left")
        for method in methods:
            _draw_curve(curves, [row for row in part if row["method"] == method], colours[method])
            _draw_trade(trade, [row for row in part if row["method"] == method], colours[method])
        curves.set(xscale="log", xlabel="labelled images of the new domain")
        curves.set_xticks(counts := sorted({row["labels"] for row in part}), list(map(str, counts)))
        curves.minorticks_off()
        trade.set_xlabel("new domain, balanced accuracy, %")
        for axes in (curves, trade):
            axes.grid(alpha=0.25)
    grid[0][0].set_ylabel("new domain, balanced accuracy, %")
    grid[1][0].set_ylabel("old domain, balanced accuracy, %")
    handles, labels = grid[0][0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside right upper", frameon=False)
    return picture


def whole_scenarios(figures: Rows) -> Rows:
    """Return the accuracies over all drifts of a kind, single drifts left out."""
    rows = [row for row in figures if row["figure"] == "accuracy"]
    most: dict[str, int] = {}
    for row in rows:
        most[row["scenario"]] = max(most.get(row["scenario"], 0), len(row["drifts"]))
    return [row for row in rows if len(row["drifts"]) == most[row["scenario"]]]


def _draw_curve(axes: Axes, rows: Rows, colour: str) -> None:
    method = rows[0]["method"] if rows else ""
    x = [row["labels"] for row in rows]
    y = [100 * row["new"]["mean"] for row in rows]
    if method in (NONE, ORACLE):
        axes.plot(x, y, linestyle="--" if method == ORACLE else ":", color=colour, label=method)
        return
    width = 2.4 if method == MEDLOOP else 1.2
    axes.plot(x, y, marker="o", markersize=3, linewidth=width, color=colour, label=method)
    if all(row["new"]["low"] is not None for row in rows):
        low, high = ([100 * row["new"][end] for row in rows] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.22 if method == MEDLOOP else 0.07, linewidth=0)


def _draw_trade(axes: Axes, rows: Rows, colour: str) -> None:
    shown = [row for row in rows if row["labels"] <= CHOSEN_LABELS]
    if not shown:
        return
    row = shown[-1]
    marker = {MEDLOOP: "o", NONE: "s", ORACLE: "*"}.get(row["method"], "x")
    size = 11 if row["method"] in (MEDLOOP, ORACLE) else 7
    axes.plot(
        100 * row["new"]["mean"], 100 * row["old"]["mean"], marker, color=colour, markersize=size, mew=1.8
    )


if __name__ == "__main__":
    main()
