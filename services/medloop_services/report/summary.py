"""The figures of one run of the loop, under the names that `--json` promises."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from medloop_services.report.evaluation import Evaluation
from medloop_services.report.trace import Moment, Trace
from medloop_services.report.where import Where

EXPECTED = {
    "data-drift": "data-drift",
    "site-change": "data-drift",
    "concept-drift": "concept-drift",
    "new-class": "new-class",
}
"""Scenario → the right diagnosis."""


@dataclass(frozen=True, slots=True)
class Domains:
    """The models' figures on the test sets: None where there is no such model or set.

    Attributes:
        before: the base model on what it was trained for.
        drifted: the base model on the new domain.
        after: the released model on the new domain.
        oracle: the same network trained offline on both domains, on the new domain.
        old_domain_before: the base model on the part of the old domain that still holds.
        old_domain_after: the released model on that part.
    """

    before: Evaluation
    drifted: Evaluation
    after: Evaluation | None
    oracle: Evaluation | None
    old_domain_before: Evaluation
    old_domain_after: Evaluation | None

    def __iter__(self) -> Any:
        return iter((name, getattr(self, name)) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class Summary:
    """What `medloop demo` and `medloop simulate` report."""

    scenario: str
    data: str
    seed: int
    images: int
    drift_at_image: int
    expected_diagnosis: str
    setup_seconds: float
    drift_seconds: float
    trace: Trace
    domains: Domains
    where: Where

    @property
    def detected_at_image(self) -> int | None:
        """Images taken when a device first raised an alarm after the change, or None."""
        positions = [alarm.position for device in self.where.devices for alarm in device.alarms]
        return min((each for each in positions if each >= self.drift_at_image), default=None)

    @property
    def diagnosed_at_image(self) -> int | None:
        """Images taken when the site's adaptation was requested, or None."""
        moment = self.trace.moment("diagnosis")
        return moment.position if moment else None

    @property
    def false_alarms(self) -> int:
        """Alarms that devices raised before the change."""
        positions = [alarm.position for device in self.where.devices for alarm in device.alarms]
        return sum(each < self.drift_at_image for each in positions)

    @property
    def diagnosis(self) -> str | None:
        """The first diagnosis made."""
        request = next(iter(self.trace.requests.values()), None)
        return request.diagnosis.value if request else None

    @property
    def gap_closed(self) -> float | None:
        """Share of the balanced-accuracy gap between the drifted model and the oracle that was closed."""
        after, oracle = self.domains.after, self.domains.oracle
        if after is None or oracle is None:
            return None
        drifted = self.domains.drifted.balanced_accuracy.value
        gap = oracle.balanced_accuracy.value - drifted
        return (after.balanced_accuracy.value - drifted) / gap if gap > 0 else None

    @property
    def reasons_open(self) -> list[str]:
        """Why the loop did not close; empty when it did."""
        trace, released = self.trace, self.trace.released
        diagnosed = self.diagnosed_at_image
        checks = [
            (diagnosed is None, "no adaptation was requested"),
            (diagnosed is not None and diagnosed < self.drift_at_image, "it was diagnosed before the drift"),
            (
                self.diagnosis is not None and self.diagnosis != self.expected_diagnosis,
                f"diagnosed {self.diagnosis}, but it was {self.expected_diagnosis}",
            ),
            (released is None, "no new version became stable"),
            (self._no_better(), "the released model is no better on the new domain than the drifted one"),
            (trace.lost > 0, f"{trace.lost} events were lost"),
            (trace.duplicates_in_effect > 0, f"{trace.duplicates_in_effect} events took effect twice"),
        ]
        return [reason for failed, reason in checks if failed]

    def _no_better(self) -> bool:
        after = self.domains.after
        return (
            after is not None
            and after.balanced_accuracy.value <= self.domains.drifted.balanced_accuracy.value
        )

    def as_json(self) -> dict[str, Any]:
        """Return the promised names with plain values; figures in [0, 1], times in seconds."""
        trace, released = self.trace, self.trace.released
        request = next(iter(trace.requests.values()), None)
        released_at = trace.moment("stable")
        return {
            "scenario": self.scenario,
            "data": self.data,
            "seed": self.seed,
            "images": self.images,
            "drift_at_image": self.drift_at_image,
            "detected_at_image": self.detected_at_image,
            "diagnosed_at_image": self.diagnosed_at_image,
            "false_alarms": self.false_alarms,
            "detector": request.detector if request else None,
            "diagnosis": self.diagnosis,
            "expected_diagnosis": self.expected_diagnosis,
            "evidence": list(request.evidence) if request else [],
            "where": self.where.as_json(),
            "strategy": request.strategy.value if request else None,
            "accuracy": {name: e.accuracy.value if e else None for name, e in self.domains},
            "balanced_accuracy": {name: e.balanced_accuracy.value if e else None for name, e in self.domains},
            "intervals": {name: e.as_json() if e else None for name, e in self.domains},
            "gap_closed": self.gap_closed,
            "images_to_recover": released_at.position - self.drift_at_image if released_at else None,
            "base_version": trace.base.version if trace.base else None,
            "released_version": released.version if released else None,
            "rolled_back": trace.rolled_back,
            "closed": not self.reasons_open,
            "reasons_open": self.reasons_open,
            "seconds": self._seconds(),
            "events": {
                "in": len(trace.images) + len(trace.labels),
                "images": len(trace.images),
                "labels": len(trace.labels),
                "predictions": len(trace.served),
                "dead_letters": len(trace.dead_letters),
                "duplicates_in_effect": trace.duplicates_in_effect,
                "lost": trace.lost,
            },
        }

    def _seconds(self) -> dict[str, float | None]:
        moments: dict[str, Moment | None] = {
            name: self.trace.moment(name) for name in ("diagnosis", "candidate", "stable")
        }
        marks = [self.drift_seconds, *(m.seconds if m else None for m in moments.values())]
        spans = [b - a if a is not None and b is not None else None for a, b in pairwise(marks)]
        return {"setup": self.setup_seconds} | dict(zip(("detect", "adapt", "release"), spans, strict=True))
