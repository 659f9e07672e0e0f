"""Three pictures of where drift is: the layer heat map, a device's courses, and its most shifted images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from medloop_schemas import DetectorReading, DriftSignalled
from numpy.typing import NDArray

from medloop_services.report.image_examples import Example, Pair, by_readers, shifted_beside_typical
from medloop_services.report.plots import INK, LAYER_COLOURS, MUTED, STYLE, svg
from medloop_services.report.standard_scores import MOST_DEVIATIONS
from medloop_services.report.where import Alarm, Device, Onset, Where, ratio

MOST_DEVICES = 8
"""That are drawn, those that alarmed first."""
COLUMNS = 120
"""Moments of the heat map, at most."""
MOST_RATIO = 4.0
"""Where the heat map's colours end."""

LEFT_MARGIN = 0.12
"""Of the width: a name there is written to the right of its mark."""

CHANGE_COLOUR, ALARM_COLOUR, ONSET_COLOUR = "#c92a2a", "#e67700", "#1971c2"
HEAT = LinearSegmentedColormap.from_list(
    "heat", [(0, "#f8f9fa"), (0.35, "#d0ebff"), (0.5, "#ffd8a8"), (0.501, "#ff922b"), (1, "#7f0b0b")]
)

Plot = Callable[[], Figure]


def where_pictures(where: Where) -> dict[str, str]:
    """Return the pictures as SVG, by what their files are called."""
    with plt.rc_context(STYLE):
        return {name: svg(draw()) for name, draw in _plots(where).items()}


def save_where_pictures(where: Where, beside: Path) -> list[Path]:
    """Write the pictures as PNG files beside another picture, named after it, and return their paths."""
    paths = []
    with plt.rc_context(STYLE):
        for name, draw in _plots(where).items():
            path = beside.with_name(f"{beside.stem}-{name}.png")
            figure = draw()
            figure.savefig(path, dpi=110, metadata={"Software": None})
            plt.close(figure)
            paths.append(path)
    return paths


def _plots(where: Where) -> dict[str, Plot]:
    plots: dict[str, Plot] = {}
    if where.devices:
        plots["layers"] = lambda: _layers_figure(where)
    for device in where.alarmed[:MOST_DEVICES]:
        name = file_name(device.device_id)
        plots[f"{name}-course"] = lambda device=device: _course_figure(where, device)  # type: ignore[misc]
        pairs = shifted_beside_typical(where, device)
        if pairs:
            plots[f"{name}-images"] = (
                lambda device=device, pairs=pairs: _images_figure(device, pairs)  # type: ignore[misc]
            )
    return plots


def file_name(device_id: str) -> str:
    """Return a device's id as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", device_id).strip("-")


# --- the layer heat map -------------------------------------------------------------------------------


def _layers_figure(where: Where) -> Figure:
    devices = where.devices[:MOST_DEVICES]
    height = 1.0 + 1.15 * len(devices)
    figure, grid = plt.subplots(
        len(devices), 1, figsize=(9, height), layout="constrained", sharex=True, squeeze=False
    )
    norm = TwoSlopeNorm(1, vmin=0, vmax=MOST_RATIO)
    mesh: Any = None
    for axes, device in zip(grid[:, 0], devices, strict=True):
        mesh = _draw_heat(axes, where, device, norm)
    grid[0, 0].set_title(_layers_title(where), loc="left", fontsize=11)
    grid[-1, 0].set_xlabel("images of the whole stream")
    bar = figure.colorbar(mesh, ax=grid[:, 0].tolist(), extend="max", pad=0.01, aspect=30)
    bar.set_ticks([0, 0.5, 1, 2, 3, 4], labels=["quiet", "", "alarm", "2 ×", "3 ×", "4 ×"])
    bar.set_label("statistic ÷ threshold")
    return figure


def _layers_title(where: Where) -> str:
    alarmed = len(where.alarmed)
    shown = min(len(where.devices), MOST_DEVICES)
    rest = f" (the first {shown} of {len(where.devices)} shown)" if shown < len(where.devices) else ""
    return f"Which device, in which layer: {alarmed} of {len(where.devices)} alarmed (▼){rest}"


def _draw_heat(axes: Axes, where: Where, device: Device, norm: TwoSlopeNorm) -> Any:
    edges, heat = layer_heat(where, device)
    layers = list(LAYER_COLOURS)
    axes.set_facecolor("#ffffff")
    mesh = axes.pcolormesh(edges, np.arange(len(layers) + 1), heat, cmap=HEAT, norm=norm)
    axes.set_yticks(np.arange(len(layers)) + 0.5, layers, fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_ylabel(device.device_id, rotation=0, ha="right", va="center", labelpad=8, color=INK)
    if where.known_position is not None:
        axes.axvline(where.known_position, color=INK, linewidth=1.2, linestyle=":")
        if device is where.devices[0]:
            _annotate(axes, where.known_position, "true change", INK, left=True)
    for alarm in device.alarms:
        axes.plot(alarm.position, 0, marker="v", color=INK, markersize=6, clip_on=False, zorder=5)
    return mesh


def layer_heat(where: Where, device: Device) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a device's heat: moments' edges (t + 1,) in positions, and the highest ratios (layers, t).

    NaN where a layer said nothing yet, and after the device's last signal: another version may serve then.
    """
    total = max(1, len(where.trace.times))
    columns = min(COLUMNS, total)
    edges = np.linspace(0, total, columns + 1)
    heat = np.full((len(LAYER_COLOURS), columns), np.nan)
    latest = np.full(len(LAYER_COLOURS), np.nan)
    places = [
        (int(np.clip(np.searchsorted(edges, where.trace.position(signal.time)) - 1, 0, columns - 1)), signal)
        for signal in device.signals
    ]
    start = 0
    for column, signal in places:
        heat[:, start:column] = latest[:, np.newaxis]
        start = max(start, column)
        latest = _layer_ratios(signal)
        heat[:, column] = np.fmax(heat[:, column], latest)
        start = column + 1
    return edges, heat


def _layer_ratios(signal: DriftSignalled) -> NDArray[np.float64]:
    ratios = np.full(len(LAYER_COLOURS), np.nan)
    for place, layer in enumerate(LAYER_COLOURS):
        known = [ratio(reading) for reading in signal.readings if reading.layer.value == layer]
        silent = layer == "label" and not signal.labels_seen
        if known and not silent:
            ratios[place] = max(known)
    return ratios


# --- the courses of what alarmed ----------------------------------------------------------------------


def _course_figure(where: Where, device: Device) -> Figure:
    courses = _alarmed_courses(device)
    figure, grid = plt.subplots(
        len(courses),
        1,
        figsize=(9, 0.9 + 1.75 * len(courses)),
        layout="constrained",
        sharex=True,
        squeeze=False,
    )
    for axes, (detector, layer) in zip(grid[:, 0], courses, strict=True):
        _draw_course(axes, where, device, detector, layer)
    figure.suptitle(_course_title(device), x=0.01, ha="left", fontsize=11)
    grid[-1, 0].set_xlabel("images of the whole stream")
    return figure


def _course_title(device: Device) -> str:
    alarm = device.main_alarm
    if alarm is None or alarm.onset is None:
        return device.device_id
    onset = alarm.onset
    return (
        f"{device.device_id}: changed at image {onset.position} "
        f"(95 % interval {onset.position_low} to {onset.position_high}), alarm at {alarm.position}"
    )


def _alarmed_courses(device: Device) -> list[tuple[str, str]]:
    """Return (detector, layer) of what alarmed: a layer's own, first the detector that alarmed first."""
    first: dict[str, str] = {}
    for signal in device.signals:
        for reading in sorted(signal.readings, key=ratio, reverse=True):
            if reading.alarmed:
                first.setdefault(reading.layer.value, reading.detector)
    return [(first[layer], layer) for layer in LAYER_COLOURS if layer in first]


def _draw_course(axes: Axes, where: Where, device: Device, detector: str, layer: str) -> None:
    points = [
        (where.trace.position(signal.time), reading)
        for signal in device.signals
        for reading in signal.readings
        if (reading.detector, reading.layer.value) == (detector, layer)
    ]
    positions = [position for position, _ in points]
    ratios = [ratio(reading) for _, reading in points]
    colour = LAYER_COLOURS[layer]
    axes.plot(positions, ratios, color=colour, linewidth=1.5)
    axes.fill_between(
        positions,
        1,
        ratios,
        where=[r > 1 for r in ratios],
        color=colour,
        alpha=0.18,
        linewidth=0,
        interpolate=True,
    )
    axes.axhline(1, color=MUTED, linewidth=1, linestyle="--")
    axes.annotate(
        "alarm above",
        (1, 1),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        color=MUTED,
        fontsize=8,
    )
    axes.set_title(f"{layer} · {_what(points)} ({detector})", loc="left", fontsize=9.5, color=colour)
    axes.set_ylabel("÷ threshold")
    axes.set_ylim(0, max(1.6, 1.08 * max(ratios, default=1)))
    axes.set_xlim(0, max(1, len(where.trace.times)))
    for alarm in device.alarms:
        _draw_alarm(axes, alarm)
    if where.known_position is not None:
        axes.axvline(where.known_position, color=CHANGE_COLOUR, linewidth=1.2, linestyle=":")
        _name_left(axes, where.known_position, "true change", CHANGE_COLOUR, row=2)


def _what(points: list[tuple[int, DetectorReading]]) -> str:
    alarmed = [reading.statistic for _, reading in points if reading.alarmed]
    return " ".join(dict.fromkeys(alarmed[:1]))


def _draw_alarm(axes: Axes, alarm: Alarm) -> None:
    axes.axvline(alarm.position, color=ALARM_COLOUR, linewidth=1.2)
    _annotate(axes, alarm.position, "alarm", ALARM_COLOUR)
    if alarm.onset is not None:
        _draw_onset(axes, alarm.onset)


def _draw_onset(axes: Axes, onset: Onset) -> None:
    axes.axvspan(onset.position_low, onset.position_high, color=ONSET_COLOUR, alpha=0.12, linewidth=0)
    axes.axvline(onset.position, color=ONSET_COLOUR, linewidth=1.2)
    _name_left(axes, onset.position, "changed since", ONSET_COLOUR, row=1)


def _name_left(axes: Axes, position: int, text: str, colour: str, *, row: int) -> None:
    """Write to the left of a mark, or to its right where there is no room."""
    crowded = position < LEFT_MARGIN * axes.get_xlim()[1]
    _annotate(axes, position, text, colour, row=row, left=not crowded)


def _annotate(axes: Axes, position: int, text: str, colour: str, *, row: int = 0, left: bool = False) -> None:
    axes.annotate(
        text,
        (position, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-3 if left else 3, -9 - 11 * row),
        textcoords="offset points",
        color=colour,
        fontsize=8,
        ha="right" if left else "left",
    )


# --- the most shifted images --------------------------------------------------------------------------


def _images_figure(device: Device, pairs: tuple[Pair, ...]) -> Figure:
    figure, grid = plt.subplots(2, len(pairs), figsize=(9, 5.1), layout="constrained", squeeze=False)
    for column, pair in enumerate(pairs):
        _draw_image(grid[0, column], pair.shifted, CHANGE_COLOUR)
        if pair.typical is None:
            _draw_nothing(grid[1, column])
        else:
            _draw_image(grid[1, column], pair.typical, MUTED)
    alarm = device.main_alarm
    why = "readers disagree" if alarm and by_readers(alarm) else "most shifted"
    grid[0, 0].set_ylabel(f"since the change:\n{why}", color=CHANGE_COLOUR)
    grid[1, 0].set_ylabel("before: typical,\nsame answer", color=INK)
    figure.suptitle(
        f"{device.device_id}: its images since the change, beside typical ones before",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    return figure


def _draw_image(axes: Axes, example: Example, colour: str) -> None:
    axes.imshow(example.pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=2)
    answer = f"model: {example.answer}"
    if example.reading is not None:
        answer += f"\nreader: {example.reading}"
    axes.set_title(f"image {example.sequence}\n{answer}", fontsize=8, color=INK)
    layer, _, statistic = example.statistic.partition(".")
    score = (
        f"{example.score:+.1f} σ"
        if abs(example.score) < MOST_DEVIATIONS
        else f"≥ {MOST_DEVIATIONS:.0f} σ off"
    )
    axes.set_xlabel(f"{example.distance:.1f} σ off over all\n{statistic} ({layer}): {score}", fontsize=8)


def _draw_nothing(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(0.5, 0.5, "none before\nof this answer", ha="center", va="center", color=MUTED)
