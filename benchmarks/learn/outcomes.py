"""Everything that was measured, and what is read off it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from drifts import COUNTS, JOURNEY, STEP_COST
from gaps import Estimate, FloatArray, estimate, gap_share, paired_difference
from methods import MEDLOOP, NONE, ORACLE

DOMAINS = ("new", "old", "changed")


class Outcomes:
    """Rows of the journal.

    Args:
        rows: of the same drifts for every method; of ten drifts in a row, and of what a step costs. Drifts
            shown together are of the seeds that every method has of them all.
    """

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = [row for row in rows if row["drift"] not in (JOURNEY, STEP_COST)]
        self.journeys = [row for row in rows if row["drift"] == JOURNEY]
        self.step_cost = next((row for row in rows if row["drift"] == STEP_COST), None)
        self._points = {(row["drift"], row["seed"], row["method"]): row["points"] for row in self.rows}

    @cached_property
    def scenarios(self) -> dict[str, list[str]]:
        """Kind of drift → names of its drifts."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            names = found.setdefault(row["scenario"], [])
            if row["drift"] not in names:
                names.append(row["drift"])
        return found

    @cached_property
    def methods(self) -> list[str]:
        """Names of what was measured, bounds left out."""
        return [
            name for name in dict.fromkeys(row["method"] for row in self.rows) if name not in (NONE, ORACLE)
        ]

    def seeds(self, drifts: Sequence[str]) -> list[int]:
        """Return the streams that every method was shown of every one of some drifts."""
        wanted = {(drift, method) for drift in drifts for method in (NONE, ORACLE, *self.methods)}
        return sorted(seed for seed, measured in self._measured.items() if wanted <= measured)

    @cached_property
    def _measured(self) -> dict[int, set[tuple[str, str]]]:
        """Seed → drifts and methods that were measured with it."""
        found: dict[int, set[tuple[str, str]]] = {}
        for drift, seed, method in self._points:
            found.setdefault(seed, set()).add((drift, method))
        return found

    def counts(self, drifts: Sequence[str]) -> list[int]:
        """Return which of COUNTS every method reached on every one of some drifts."""
        seen = [
            {point["labels"] for point in points}
            for (drift, _, method), points in self._points.items()
            if drift in drifts and method not in (NONE, ORACLE)
        ]
        return sorted(set(COUNTS).intersection(*seen)) if seen else []

    def values(self, method: str, drifts: Sequence[str], labels: int, domain: str) -> FloatArray:
        """Return a method's (seeds, drifts) figures after so many labels; a bound's never change."""
        return np.array(
            [
                [self._value(self._points[drift, seed, method], labels, domain) for drift in drifts]
                for seed in self.seeds(drifts)
            ]
        )

    def accuracy(self, method: str, drifts: Sequence[str], labels: int, domain: str) -> Estimate:
        """Return the mean over drifts, estimated over seeds."""
        return estimate(self.values(method, drifts, labels, domain).mean(axis=1))

    def closed(self, method: str, drifts: Sequence[str], labels: int) -> Estimate:
        """Return which share of the gap to the oracle on the new domain is closed."""
        bounds = (self.values(name, drifts, labels, "new") for name in (NONE, ORACLE))
        none, oracle = bounds
        return estimate(gap_share(none, self.values(method, drifts, labels, "new"), oracle))

    def old_loss(self, method: str, drifts: Sequence[str], labels: int) -> Estimate:
        """Return how much balanced accuracy the old domain has lost since before the adaptation."""
        none = self.values(NONE, drifts, labels, "old")
        return paired_difference(none, self.values(method, drifts, labels, "old"))

    def ahead(self, method: str, peer: str, drifts: Sequence[str], labels: int) -> Estimate:
        """Return by how much a method is ahead of a peer on the new domain."""
        ours, theirs = (self.values(name, drifts, labels, "new") for name in (method, peer))
        return paired_difference(ours, theirs)

    def recall_after(self, method: str, drifts: Sequence[str], changed: int) -> Estimate:
        """Return the accuracy on what changed, as soon as so many changed images were learned from."""
        found = [
            [
                next(
                    (
                        p["changed"]
                        for p in self._points[drift, seed, method]
                        if p["changed_labels"] >= changed
                    ),
                    self._points[drift, seed, method][-1]["changed"],
                )
                for drift in drifts
            ]
            for seed in self.seeds(drifts)
        ]
        return estimate(np.array(found).mean(axis=1))

    def milliseconds(self, method: str, drifts: Sequence[str]) -> float:
        """Return the mean time of an update."""
        rows = [row for row in self.rows if row["method"] == method and row["drift"] in drifts]
        return 1e3 * sum(row["seconds"] for row in rows) / max(sum(row["updates"] for row in rows), 1)

    def erosion(self, method: str) -> FloatArray:
        """Return (seeds, stops): how much was lost from right after a stop until the journey's end."""
        return self._stops(method, "after") - self.ends(method)

    def ends(self, method: str) -> FloatArray:
        """Return (seeds, stops): balanced accuracy on each stop's domain at the journey's end."""
        return self._stops(method, "end")

    def _stops(self, method: str, when: str) -> FloatArray:
        return np.array(
            [[point[when] for point in row["points"]] for row in self.journeys if row["method"] == method]
        )

    def lines(self) -> Iterator[dict[str, Any]]:
        """Return every figure as a JSON object, the figure's kind under `figure`."""
        for scenario, drifts in self.scenarios.items():
            for group in (drifts, *([drift] for drift in drifts if len(drifts) > 1)):
                yield from self._figures(scenario, group)
        for method in dict.fromkeys(row["method"] for row in self.journeys):
            lost = self.erosion(method)
            yield {
                "figure": "erosion",
                "method": method,
                "domains": [point["domain"] for point in self.journeys[0]["points"]],
                "lost": lost.mean(axis=0).tolist(),
                "end": self.ends(method).mean(axis=0).tolist(),
                "seeds": len(lost),
            }
        for row in (*self.rows, *self.journeys, *([self.step_cost] if self.step_cost else [])):
            yield {"figure": "run", **row}

    def _figures(self, scenario: str, drifts: list[str]) -> Iterator[dict[str, Any]]:
        for method in (NONE, *self.methods, ORACLE):
            for labels in self.counts(drifts):
                yield {
                    "figure": "accuracy",
                    "scenario": scenario,
                    "drifts": drifts,
                    "method": method,
                    "labels": labels,
                    **{name: asdict(self.accuracy(method, drifts, labels, name)) for name in DOMAINS},
                    "closed": asdict(self.closed(method, drifts, labels)),
                    "old_loss": asdict(self.old_loss(method, drifts, labels)),
                    "milliseconds": self.milliseconds(method, drifts),
                    "seeds": len(self.seeds(drifts)),
                }
        for peer in self.methods if MEDLOOP in self.methods else ():
            for labels in self.counts(drifts):
                if peer != MEDLOOP:
                    yield {
                        "figure": "ahead",
                        "scenario": scenario,
                        "drifts": drifts,
                        "peer": peer,
                        "labels": labels,
                        "ahead": asdict(self.ahead(MEDLOOP, peer, drifts, labels)),
                    }

    @staticmethod
    def _value(points: list[dict[str, Any]], labels: int, domain: str) -> float:
        point = points[0] if points[0]["labels"] == 0 else next(p for p in points if p["labels"] == labels)
        return float(point[domain])


def finite(value: Any) -> Any:
    """Return a JSON value with null for what JSON can't say: infinity and what is not a number."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
