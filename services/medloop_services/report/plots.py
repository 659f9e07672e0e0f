"""The report's three plots, each as SVG text or a PNG file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medloop_services.report.summary import Summary
from medloop_services.report.trace import Trace

INK, MUTED = "#1f2933", "#7b8794"
LAYER_COLOURS = {
    "data": "#0b7285",
    "feature": "#5f3dc4",
    "activation": "#2b8a3e",
    "decision": "#e67700",
    "label": "#c92a2a",
}
MOMENT_COLOURS = {"drift": "#c92a2a", "diagnosis": "#e67700", "canary": "#1971c2", "stable": "#2b8a3e"}
MOMENT_NAMES = {"drift": "drift", "diagnosis": "diagnosed", "canary": "canary", "stable": "released"}

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.hashsalt": "medloop",
    "svg.fonttype": "none",
}


def accuracy_plot(summary: Summary) -> str:
    """Accuracy of what was served over the stream, as SVG."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 3.1), layout="constrained")
        _draw_accuracy(axes, summary)
        return svg(figure)


def statistics_plot(summary: Summary) -> str:
    """Every layer's statistic against its threshold over the stream, as SVG."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 3.1), layout="constrained")
        _draw_statistics(axes, summary)
        return svg(figure)


def domains_plot(summary: Summary) -> str:
    """Balanced accuracy on the new and the old domain, with 95 % intervals, as SVG."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 2.9), layout="constrained")
        _draw_domains(axes, summary)
        return svg(figure)


def save_picture(summary: Summary, path: Path) -> None:
    """Write the three plots as one PNG."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(3, 1, figsize=(9, 8.6), layout="constrained")
        _draw_accuracy(axes[0], summary)
        _draw_statistics(axes[1], summary)
        _draw_domains(axes[2], summary)
        figure.savefig(path, dpi=110, metadata={"Software": None})
        plt.close(figure)


def _draw_accuracy(axes: Axes, summary: Summary) -> None:
    points = summary.trace.rolling_accuracy()
    if points:
        positions, accuracy = zip(*points, strict=True)
        axes.plot(positions, accuracy, color=INK, linewidth=1.6)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("accuracy, last 64 labels")
    axes.set_xlabel("images")
    axes.set_title("What was served", loc="left", fontsize=11)
    _mark_moments(axes, summary)


def _draw_statistics(axes: Axes, summary: Summary) -> None:
    for layer, colour in LAYER_COLOURS.items():
        positions, ratios = _highest(summary.trace, layer)
        if positions:
            axes.plot(positions, ratios, color=colour, linewidth=1.3, label=layer)
    axes.axhline(1, color=MUTED, linewidth=1, linestyle="--")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("statistic ÷ threshold")
    axes.set_xlabel("images")
    axes.set_title("What the detectors saw", loc="left", fontsize=11)
    axes.legend(loc="lower right", frameon=False, ncols=5, fontsize=8)
    _mark_moments(axes, summary)


def _highest(trace: Trace, layer: str) -> tuple[list[int], list[float]]:
    """The course of a layer: at each position, the highest of the devices' latest ratios."""
    latest: dict[str, float] = {}
    course: dict[int, float] = {}
    for level in sorted(trace.levels, key=lambda level: level.position):
        if level.layer == layer:
            latest[level.device_id] = level.ratio
            course[level.position] = max(latest.values())
    return list(course), list(course.values())


def _draw_domains(axes: Axes, summary: Summary) -> None:
    labels = {
        "before": "base model, before",
        "drifted": "base model, after the drift",
        "after": "released model, new domain",
        "oracle": "trained offline on both",
        "old_domain_before": "base model, old domain",
        "old_domain_after": "released model, old domain",
    }
    rows = [(labels[name], e.balanced_accuracy) for name, e in summary.domains if e is not None]
    for row, (_, figure) in enumerate(rows):
        errors = [[max(0.0, figure.value - figure.low)], [max(0.0, figure.high - figure.value)]]
        axes.barh(row, figure.value, xerr=errors, color="#d0ebff", ecolor=INK, capsize=3, height=0.62)
        axes.text(0.01, row, f"{100 * figure.value:.1f} %", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("balanced accuracy on the test set, 95 % interval")
    axes.set_title("What it was worth", loc="left", fontsize=11)


def _mark_moments(axes: Axes, summary: Summary) -> None:
    marks = [("drift", summary.drift_at_image)]
    marks += [(m.name, m.position) for m in summary.trace.moments if m.name in MOMENT_COLOURS]
    for name, position in marks:
        axes.axvline(position, color=MOMENT_COLOURS[name], linewidth=1.1)
        axes.annotate(
            MOMENT_NAMES[name],
            (position, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -9),
            textcoords="offset points",
            color=MOMENT_COLOURS[name],
            fontsize=8,
        )
    axes.set_xlim(0, max(summary.images, 1))


def svg(figure: Figure) -> str:
    """Return a figure as SVG text, and close it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
