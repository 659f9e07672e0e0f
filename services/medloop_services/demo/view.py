"""The live view: where the stream is, what was served, what the detectors see, what the loop is doing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from medloop_services.report.trace import Trace

STEPS = ("alarm", "diagnosis", "candidate", "canary", "stable")
STEP_NAMES = {
    "alarm": "alarm",
    "diagnosis": "diagnosed",
    "candidate": "fine-tuned",
    "canary": "canary",
    "stable": "released",
}
LAYERS = ("data", "feature", "activation", "decision", "label")
BAR_WIDTH = 24


def draw(
    trace: Trace, *, title: str, images: int, drift_at: int, phase: str, notes: Sequence[str] = ()
) -> RenderableType:
    """Return the view of a trace.

    Args:
        trace: what has happened.
        title: of the frame.
        images: the stream's length.
        drift_at: images before the drift.
        phase: a sentence on what is going on.
        notes: what services say of themselves, such as what a diagnosis waits for.
    """
    return Panel(
        Group(
            _stream(trace, images, drift_at),
            Text(),
            _columns(_detectors(trace), _devices(trace)),
            Text(),
            _steps(trace),
            *(Text(note, style="yellow") for note in notes),
            Text(phase, style="dim"),
        ),
        title=title,
        title_align="left",
        border_style="grey50",
    )


def _stream(trace: Trace, images: int, drift_at: int) -> RenderableType:
    position = len(trace.images)
    rolling = trace.rolling_accuracy()
    table = Table.grid(padding=(0, 2))
    drifted = position > drift_at
    table.add_row(
        Text("stream"),
        ProgressBar(total=images, completed=position, width=BAR_WIDTH * 2),
        Text(f"{position} of {images} images"),
        Text("drifted" if drifted else f"drift at {drift_at}", style="red" if drifted else "dim"),
    )
    accuracy = rolling[-1][1] if rolling else None
    table.add_row(
        Text("accuracy"),
        ProgressBar(total=1.0, completed=accuracy or 0.0, width=BAR_WIDTH * 2, complete_style="green"),
        Text("no labels yet" if accuracy is None else f"{100 * accuracy:.0f} % of the last 64 labelled"),
        Text(""),
    )
    return table


def _detectors(trace: Trace) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    latest: dict[tuple[str, str], float] = {}
    for level in trace.levels[-400:]:
        latest[level.device_id, level.layer] = level.ratio
    for layer in LAYERS:
        ratios = [ratio for (_, found), ratio in latest.items() if found == layer]
        if ratios:
            highest = max(ratios)
            style = "red" if highest >= 1 else "cyan"
            bar = ProgressBar(
                total=1.0,
                completed=min(highest, 1.0),
                width=BAR_WIDTH,
                complete_style=style,
                finished_style=style,
            )
            table.add_row(Text(layer), bar, Text(f"{highest:.2f} × threshold", style=style))
    return table if latest else Text("no statistics yet", style="dim")


def _devices(trace: Trace) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for device, version in sorted(trace.version_of.items()):
        table.add_row(Text(device), Text(version, style="yellow" if "canary" in version else ""))
    return table


def _steps(trace: Trace) -> RenderableType:
    line = Text()
    for step in STEPS:
        moment = trace.moment(step)
        line.append("● " if moment else "○ ", style="green" if moment else "dim")
        line.append(STEP_NAMES[step], style="" if moment else "dim")
        line.append(f" at {moment.position}   " if moment else "   ", style="dim")
    last = trace.moments[-1].text if trace.moments else ""
    return Group(line, Text(last, style="italic", overflow="ellipsis", no_wrap=True))


def _columns(*parts: RenderableType) -> RenderableType:
    grid = Table.grid(padding=(0, 6))
    grid.add_row(*parts)
    return grid
