"""Delays and run lengths as pictures."""

from __future__ import annotations

from math import isinf
from pathlib import Path

import matplotlib as mpl
import numpy as np
from conditions import READERS
from experiment import CHANGED_IMAGES
from goals import IMAGES_PER_FALSE_ALARM
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import Results
from streams import Kind

mpl.rcParams["svg.hashsalt"] = "medloop"  # the same figures give the same bytes
FORMATS = ("png", "svg")
OURS = "medloop"


def draw(results: Results, images: int, folder: Path) -> list[Path]:
    """Write the pictures; return their files.

    Args:
        results: of a run.
        images: of its stationary streams.
        folder: made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {f"delays_{kind}": _delays(results, kind) for kind in Kind}
    figures["run_lengths"] = _run_lengths(results, images)
    files = []
    for name, figure in figures.items():
        for ending in FORMATS:
            file = folder / f"{name}.{ending}"
            figure.savefig(file, dpi=120, metadata={"Date": None} if ending == "svg" else None)
            files.append(file)
    return files


def _delays(results: Results, kind: Kind) -> Figure:
    rows = [row for row in results.noticed if row.stream is kind and row.group != READERS]
    conditions = list(dict.fromkeys(row.condition for row in rows))
    figure = Figure(figsize=(9, 1.5 + 0.24 * len(conditions)), layout="constrained")
    axes = figure.subplots()
    for detector in dict.fromkeys(row.detector for row in rows):
        found = {row.condition: row.delays.median for row in rows if row.detector == detector}
        places = [conditions.index(condition) for condition in found]
        axes.plot(
            list(found.values()),
            places,
            "o" if detector.startswith(OURS) else "x",
            markersize=9 if detector == f"{OURS} panel" else 5,
            label=detector,
            alpha=0.8,
        )
    axes.axvline(CHANGED_IMAGES + 1, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(conditions)), conditions)
    axes.invert_yaxis()
    axes.set_xlabel(f"median delay, images ({CHANGED_IMAGES + 1}: missed or always early), {kind} streams")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _run_lengths(results: Results, images: int) -> Figure:
    detectors = list(dict.fromkeys(row.detector for row in results.false_alarms))
    figure = Figure(figsize=(9, 1 + 1.1 * len(detectors)), layout="constrained")
    grid = figure.subplots(len(detectors), len(Kind), sharex=True, squeeze=False)
    for row in results.false_alarms:
        axes: Axes = grid[detectors.index(row.detector)][list(Kind).index(row.stream)]
        lengths = [images if alarm is None else alarm for alarm in row.first_alarms]
        axes.hist(lengths, bins=np.linspace(0, images, 21).tolist())
        mean = row.run_length.mean
        said = "none" if isinf(mean) else f"{mean:,.0f} images an alarm"
        goal = "" if mean >= IMAGES_PER_FALSE_ALARM else ", MISSED"
        axes.set_title(f"{row.detector}, {row.stream}: {said}{goal}", fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in grid[-1]:
        axes.set_xlabel(f"images until the first alarm; {images:,}: none", fontsize=8)
    return figure
