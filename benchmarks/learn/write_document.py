"""Writes docs/learning.md from what `medloop bench learn --json` wrote: every table, losers and misses too.

python benchmarks/learn/write_document.py figures.json docs/learning.md --tried scanner.json policy.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plot_learning import TITLES, whole_scenarios

Rows = list[dict[str, Any]]

INTRODUCTION = """\
# Learning that sticks: what was measured

Made by `make docs-learn` from `medloop bench learn`; nothing here is written by hand.

Every method starts from the same deployed model, keeps the same 512 labelled images from before the change,
and is given the same labelled images in the same order, 16 at a time. It is judged as it would be served,
on both domains' test images, which nothing was chosen by. Peers run at the learning rate (and weight) that
was best on validation images, chosen once a kind of drift by `benchmarks/learn/tune_peers.py`.

- `none`: no adaptation. `oracle`: the same network trained offline on all labelled images of both domains.
- `article`: the source article's rule alone: shallow QAT held by EWC; under another label policy distillation
  from the old teacher, whatever it says; for a new class a new row on a frozen backbone.
- `replay`: experience replay, arXiv 1902.10486.
- `der++`: arXiv 2004.07211. `avalanche-…`: Avalanche's own strategies, on the same network and stream.

Balanced accuracy in % ± half its 95 % interval (Student's, over seeds; each seed has its own stream order,
noise and draws). In brackets: the share of the gap from `none` to `oracle` closed, in %. `old`: on what the
change leaves as it was, after the last count.

![Accuracy against labelled images, and old against new](learn.png)
"""


TRIED = """\
## What else was tried

medloop's plan with one thing changed, which the name says in the words of `medloop_model/training/plan.py`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", type=Path, help="what `medloop bench learn --json` wrote")
    parser.add_argument("document", type=Path, help="Markdown to write")
    parser.add_argument("--tried", type=Path, nargs="*", default=[], help="what it wrote of other plans")
    arguments = parser.parse_args()
    figures = json.loads(arguments.figures.read_text())
    tried = [row for file in arguments.tried for row in json.loads(file.read_text())]
    arguments.document.parent.mkdir(parents=True, exist_ok=True)
    arguments.document.write_text("\n".join(document(figures, tried)) + "\n")


def document(figures: Rows, tried: Rows) -> Iterator[str]:
    """Return the document's lines.

    Args:
        figures: of medloop and its peers.
        tried: of medloop's plan and of others, which differ from it in what their names say.
    """
    yield INTRODUCTION
    yield from goals([row for row in figures if row["figure"] == "goal"])
    rows = whole_scenarios(figures)
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        part = [row for row in rows if row["scenario"] == scenario]
        yield f"## {TITLES.get(scenario, scenario).capitalize()}\n"
        yield from accuracies(part)
        ahead = [row for row in figures if row["figure"] == "ahead" and row["scenario"] == scenario]
        yield from behind([row for row in ahead if row["drifts"] == part[0]["drifts"]])
        yield from drift_by_drift(figures, scenario)
    yield from eroded([row for row in figures if row["figure"] == "erosion"])
    rows = whole_scenarios(tried)
    if rows:
        yield TRIED
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        yield from accuracies([row for row in rows if row["scenario"] == scenario])


def goals(rows: Rows) -> Iterator[str]:
    """Return a line a goal."""
    if not rows:
        return
    yield "## What was aimed at\n"
    yield from _header(["goal", "reached", "aimed at", ""])
    for row in rows:
        scale, unit = (100, "%") if row["unit"] == "share" else (1, row["unit"])
        sign = "≥" if row["at_least"] else "≤"
        value, bound = (f"{scale * row[key]:.1f} {unit}" for key in ("value", "bound"))
        yield _row([row["name"], value, f"{sign} {bound}", "" if row["met"] else "**MISSED**"])
    yield ""


def accuracies(rows: Rows) -> Iterator[str]:
    """Return a table of methods by counts."""
    counts = sorted({row["labels"] for row in rows})
    yield f"{len(rows[0]['drifts'])} drifts ({', '.join(rows[0]['drifts'])}), {rows[0]['seeds']} seeds.\n"
    yield from _header(["labels", *map(str, counts), "old", "ms an update"])
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = {row["labels"]: row for row in rows if row["method"] == method}
        last = cells[counts[-1]]
        cost = f"{last['milliseconds']:.0f}" if last["milliseconds"] else ""
        name = f"**{method}**" if method == "medloop" else method
        yield _row([name, *(_accuracy(cells[count]) for count in counts), _percent(last["old"]), cost])
    yield ""


def behind(rows: Rows) -> Iterator[str]:
    """Return where a peer is ahead of medloop, and which leads are beyond doubt."""
    lost = [row for row in rows if row["ahead"]["mean"] < 0]
    text = "; ".join(
        f"`{row['peer']}` at {row['labels']} ({-100 * row['ahead']['mean']:.1f} points"
        + (", beyond its interval" if _is_sure(row["ahead"]["high"], below=True) else "")
        + ")"
        for row in lost
    )
    sure = sum(_is_sure(row["ahead"]["low"], below=False) for row in rows)
    if rows:
        yield f"Ahead of medloop: {text or 'no peer at any count'}. Of {len(rows)} comparisons {sure} are"
        yield "medloop's with an interval, paired over drifts and seeds, that leaves no doubt.\n"


def drift_by_drift(figures: Rows, scenario: str) -> Iterator[str]:
    """Return a table of drifts by methods, after the last count."""
    rows = [row for row in figures if row["figure"] == "accuracy" and row["scenario"] == scenario]
    single = [row for row in rows if len(row["drifts"]) == 1]
    drifts = list(dict.fromkeys(row["drifts"][0] for row in single))
    if len(drifts) < 2:
        return
    methods = list(dict.fromkeys(row["method"] for row in single))
    last = max(row["labels"] for row in single)
    found = {(row["drifts"][0], row["method"]): row for row in single if row["labels"] == last}
    yield f"Drift by drift, new domain after {last} labels:\n"
    yield from _header(["drift", *methods])
    for drift in drifts:
        yield _row([drift, *(_percent(found[drift, method]["new"]) for method in methods)])
    yield ""


def eroded(rows: Rows) -> Iterator[str]:
    """Return what each stop of ten drifts in a row has lost by the end."""
    if not rows:
        return
    yield "## Ten drifts in a row\n"
    yield "Out to another scanner and back, five times: points of balanced accuracy that each stop's domain"
    yield f"lost from right after it was learned until the end, {rows[0]['seeds']} seeds; in brackets what"
    yield "is left, in %.\n"
    yield from _header(["method", *rows[0]["domains"]])
    for row in rows:
        stops = zip(row["lost"], row["end"], strict=True)
        yield _row([row["method"], *(f"{100 * lost:+.1f} ({100 * end:.1f})" for lost, end in stops)])
    yield ""


def _accuracy(row: dict[str, Any]) -> str:
    share = row["closed"]["mean"]
    bound = row["method"] in ("none", "oracle") or share is None
    return _percent(row["new"]) + ("" if bound else f" ({100 * share:.0f})")


def _percent(figure: dict[str, Any]) -> str:
    if figure["low"] is None:
        return f"{100 * figure['mean']:.1f}"
    return f"{100 * figure['mean']:.1f} ± {50 * (figure['high'] - figure['low']):.1f}"


def _is_sure(end: float | None, *, below: bool) -> bool:
    return end is not None and (end < 0 if below else end > 0)


def _header(cells: Sequence[str]) -> Iterator[str]:
    yield _row(cells)
    yield _row(["---", *("--:" for _ in cells[1:])])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
