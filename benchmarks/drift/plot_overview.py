"""One picture of `medloop bench drift --json`: how soon a detector notices, and how often it cries wolf.

medloop bench drift --json figures.json
python benchmarks/drift/plot_overview.py figures.json docs/drift.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from goals import CORRELATED_MILD_DELAY, IMAGES_PER_FALSE_ALARM, MILD_DELAY
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from summary import geometric_mean

TITLES = {
    "iid": ("independent images", MILD_DELAY),
    "correlated": ("classes stick together", CORRELATED_MILD_DELAY),
}
OURS, PEER, GOAL = "#1565c0", "#90a4ae", "#c62828"
PANEL = "medloop panel"
Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", type=Path, help="what `medloop bench drift --json` wrote")
    parser.add_argument("picture", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    figure = draw(json.loads(arguments.figures.read_text()))
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.picture, dpi=110)


def draw(rows: Rows) -> Figure:
    """Return the picture of all figures of a run."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    for axes, stream in zip(figure.subplots(1, 2, sharex=True, sharey=True), TITLES, strict=True):
        _draw_stream(axes, rows, stream)
    return figure


def _draw_stream(axes: Axes, rows: Rows, stream: str) -> None:
    title, most_delay = TITLES[stream]
    axes.set_title(title, loc="left")
    axes.axvspan(IMAGES_PER_FALSE_ALARM, 1e7, color="#e8f5e9", zorder=0)
    axes.axvline(IMAGES_PER_FALSE_ALARM, color=GOAL, linewidth=1, linestyle="--")
    axes.axhline(most_delay, color=GOAL, linewidth=1, linestyle=":")
    for detector in _image_detectors(rows):
        alarms = _run_length(rows, detector, stream)
        ours, none = detector.startswith("medloop"), not alarms["alarms"]
        # Without an alarm only the lower end of the interval is known.
        x = alarms["low"] if none else alarms["mean"]
        y = _mild_delay(rows, detector, stream)
        marker = ">" if none else "o"
        axes.plot(x, y, marker, color=OURS if ours else PEER, markersize=11 if detector == PANEL else 6)
        axes.annotate(
            detector,
            (x, y),
            xytext=(7, 4),
            textcoords="offset points",
            fontsize=8,
            fontweight="bold" if detector == PANEL else "normal",
            color=OURS if ours else "#455a64",
        )
    axes.set(xscale="log", yscale="log", xlim=(50, 1e6), ylim=(10, 2_000))
    axes.set_xlabel("images a false alarm (right is better; ▸: at least)")
    axes.set_ylabel("delay of mild changes, images (down is better)")
    axes.text(IMAGES_PER_FALSE_ALARM * 1.1, 1_500, "keeps the contract", fontsize=8, color="#2e7d32")
    axes.text(55, most_delay * 1.05, "goal", fontsize=8, color=GOAL)


def _image_detectors(rows: Rows) -> list[str]:
    """Return what watches images, medloop's parts left to the tables."""
    mild = [row["detector"] for row in rows if row["figure"] == "delay" and row["mild"]]
    return [each for each in dict.fromkeys(mild) if each == PANEL or not each.startswith("medloop")]


def _run_length(rows: Rows, detector: str, stream: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        row["run_length"]
        for row in rows
        if row["figure"] == "false alarms" and row["detector"] == detector and row["stream"] == stream
    )
    return found


def _mild_delay(rows: Rows, detector: str, stream: str) -> float:
    return geometric_mean(
        [
            row["delays"]["median"]
            for row in rows
            if row["figure"] == "delay"
            and row["mild"]
            and row["detector"] == detector
            and row["stream"] == stream
        ]
    )


if __name__ == "__main__":
    main()
