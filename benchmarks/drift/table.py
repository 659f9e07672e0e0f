"""Results as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf

from conditions import PRIOR, READERS
from diagnosing import CONFIDENT
from experiment import CHANGED_IMAGES
from results import Goal, Noticed, Results
from streams import Kind
from summary import RunLength

MISSED = CHANGED_IMAGES + 1


def lines(results: Results) -> Iterator[str]:
    """Return the whole table, section by section."""
    for kind in Kind:
        rows = [row for row in results.noticed if row.stream is kind]
        for labels in (False, True):
            part = [row for row in rows if (row.group == READERS) is labels]
            if part:
                yield from _delays(part, kind)
    yield from _worth(results)
    yield from _costs(results)
    yield from _site_changes(results)
    yield from _confusion(results)
    yield ""
    yield from map(_goal, results.goals)


def _delays(rows: list[Noticed], kind: Kind) -> Iterator[str]:
    detectors = list(dict.fromkeys(row.detector for row in rows))
    cells = {(row.condition, row.detector): row for row in rows}
    yield ""
    yield (
        f"{kind} streams: median / 90th percentile of the delay in images ({MISSED}: missed), power in % "
        f"within {CHANGED_IMAGES:,}; e: % of streams that had alarmed before the change, not counted"
    )
    yield f"{'':20}" + "".join(f"{detector:>22}" for detector in detectors)
    shown = {row.detector: row.delays.streams for row in rows}
    yield f"{'streams a row':20}" + "".join(f"{shown[detector]:>22}" for detector in detectors)
    for condition in dict.fromkeys(row.condition for row in rows):
        texts = [_cell(cells[condition, detector]) for detector in detectors]
        mild = "" if cells[condition, detectors[0]].mild else " *"
        yield f"{condition + mild:20}" + "".join(f"{text:>22}" for text in texts)
    yield "* not in the mild set"


def _cell(row: Noticed) -> str:
    delays = row.delays
    if delays.early == delays.streams:
        return "always early"
    early = f" e{100 * delays.early / delays.streams:.0f}" if delays.early else ""
    return f"{delays.median:.0f}/{delays.p90:.0f}/{100 * delays.power:.0f}{early}"


def _worth(results: Results) -> Iterator[str]:
    yield ""
    yield "mild delay: geometric mean of the median delays over the mild set; always early counts as missed"
    yield (
        f"{'':20} {'stream':10} {'mild delay':>10} {'without prior':>13} {'power':>7} "
        f"{'images a false alarm':>20} {'95 % interval':>20} {'alarms':>9}"
    )
    for row in results.false_alarms:
        delay, corrupted, power = _mild(results, row.detector, row.stream)
        run = row.run_length
        yield (
            f"{row.detector:20} {row.stream:10} {delay:>10} {corrupted:>13} {power:>7} "
            f"{_images(run.mean):>20} {_interval(run):>20} {run.alarms:>4}/{run.streams}"
        )


def _mild(results: Results, detector: str, stream: Kind) -> tuple[str, str, str]:
    if not results.mild(detector, stream):
        return "-", "-", "-"
    return (
        f"{results.mild_delay(detector, stream):.0f}",
        f"{results.mild_delay(detector, stream, without=PRIOR):.0f}",
        f"{100 * results.mild_power(detector, stream):.1f} %",
    )


def _interval(run: RunLength) -> str:
    return f"{_images(run.low)} to {_images(run.high)}"


def _images(value: float) -> str:
    return "∞" if isinf(value) else f"{value:,.0f}"


def _costs(results: Results) -> Iterator[str]:
    yield ""
    yield f"{'':20} {'µs an image':>12} {'bytes a device':>16}"
    for cost in results.costs:
        size = "-" if cost.state_bytes is None else f"{cost.state_bytes:,}"
        yield f"{cost.detector:20} {cost.microseconds:>12.1f} {size:>16}"


def _site_changes(results: Results) -> Iterator[str]:
    if results.site_changes:
        yield ""
        yield f"{'another laboratory':20} {'found':>12} {'early':>8} {'median delay':>14}"
    for row in results.site_changes:
        found = f"{row.found}/{row.shuffles} in {row.within}"
        yield f"{row.detector:20} {found:>12} {row.early:>8} {row.median:>14.0f}"


def _confusion(results: Results) -> Iterator[str]:
    if not results.confusion:
        return
    answers = list(dict.fromkeys(answer for row in results.confusion.values() for answer in row))
    yield ""
    yield f"{'cause / diagnosis':20}" + "".join(f"{answer:>16}" for answer in (*answers, "surely wrong"))
    for cause, row in results.confusion.items():
        counts = (*(row.get(answer, 0) for answer in answers), results.confidently_wrong.get(cause, 0))
        yield f"{cause:20}" + "".join(f"{count:>16}" for count in counts)
    yield f"surely wrong: named with a probability above {CONFIDENT:.0%}"


def _goal(goal: Goal) -> str:
    sign = "≥" if goal.at_least else "≤"
    missed = "" if goal.met else "  MISSED"
    return f"{goal.name:60} {goal.value:>12,.2f}   goal {sign} {goal.bound:,.2f}{missed}"
