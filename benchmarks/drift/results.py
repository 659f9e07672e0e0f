"""What was measured, as it is printed, plotted and written as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from streams import Kind
from summary import Delays, RunLength, geometric_mean


@dataclass(frozen=True)
class Noticed:
    """How soon a detector notices a condition; delays are in images."""

    detector: str
    stream: Kind
    condition: str
    group: str
    mild: bool
    delays: Delays


@dataclass(frozen=True)
class FalseAlarms:
    """How rarely a detector alarms where nothing changes; `first_alarms` is of each stream."""

    detector: str
    stream: Kind
    run_length: RunLength
    first_alarms: tuple[int | None, ...]


@dataclass(frozen=True)
class Cost:
    """What a detector takes: µs an image, and bytes of what it remembers of a device where it says so."""

    detector: str
    microseconds: float
    state_bytes: int | None


@dataclass(frozen=True)
class SiteChange:
    """In how many shuffles another laboratory was noticed within `within` of its images."""

    detector: str
    shuffles: int
    found: int
    early: int
    within: int
    median: float


@dataclass(frozen=True)
class Goal:
    """A figure beside the bound that is aimed at."""

    name: str
    value: float
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it is kept."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


@dataclass
class Results:
    """Everything that one run has measured."""

    seed: int
    noticed: list[Noticed] = field(default_factory=list)
    false_alarms: list[FalseAlarms] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    site_changes: list[SiteChange] = field(default_factory=list)
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Cause → diagnosis → scenarios."""
    confidently_wrong: Mapping[str, int] = field(default_factory=dict)
    """Cause → scenarios in which another was named, or one too early, with a probability above CONFIDENT."""
    goals: list[Goal] = field(default_factory=list)

    def mild(self, detector: str, stream: Kind, without: str | None = None) -> list[Delays]:
        """Return a detector's delays over the mild conditions, but for those of one group."""
        return [
            row.delays
            for row in self.noticed
            if row.mild and row.detector == detector and row.stream is stream and row.group != without
        ]

    def mild_delay(self, detector: str, stream: Kind, without: str | None = None) -> float:
        """Return the geometric mean of the median delays over the same conditions as `mild`, images."""
        return geometric_mean([delays.median for delays in self.mild(detector, stream, without)])

    def mild_power(self, detector: str, stream: Kind) -> float:
        """Return the mean power over the mild conditions; 0 for one under which every stream was early."""
        rows = self.mild(detector, stream)
        return sum(delays.power for delays in rows) / len(rows)

    def run_length(self, detector: str, stream: Kind) -> RunLength:
        """Return a detector's false alarms."""
        return next(
            row.run_length for row in self.false_alarms if row.detector == detector and row.stream is stream
        )

    def lines(self) -> Iterator[dict[str, Any]]:
        """Return every figure as a JSON object, the figure's kind under `figure`."""
        named: dict[str, Sequence[Any]] = {
            "delay": self.noticed,
            "false alarms": self.false_alarms,
            "cost": self.costs,
            "site change": self.site_changes,
        }
        for kind, rows in named.items():
            for row in rows:
                yield {"figure": kind, "seed": self.seed, **_finite(asdict(row))}
        for cause, diagnoses in self.confusion.items():
            yield {
                "figure": "diagnosis",
                "seed": self.seed,
                "cause": cause,
                "diagnosed": dict(diagnoses),
                "confidently_wrong": self.confidently_wrong.get(cause, 0),
            }
        for goal in self.goals:
            yield {"figure": "goal", "seed": self.seed, **_finite(asdict(goal)), "met": goal.met}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return values with null for what JSON can't say: infinity."""
    return {
        key: _finite(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not isfinite(value)
        else value
        for key, value in values.items()
    }
