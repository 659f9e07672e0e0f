"""What the learning is aimed at; the table says MISSED where it is not reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from medloop_services.replay.settings import ScenarioName
from methods import MEDLOOP
from outcomes import Outcomes

GAP_AFTER_128, GAP_AFTER_512 = 0.80, 0.95
"""At least: share of the gap to the oracle closed under data drift."""

CONCEPT_GAP, CONCEPT_LABELS = 0.90, 256
"""At least, under a changed label policy."""

NEW_CLASS_RECALL, NEW_CLASS_IMAGES = 0.90, 32
"""At least, after so many images of the new class."""

SITE_GAP = 0.60
"""At least, at another laboratory, of which a few dozen cells are labelled."""

OLD_LOSS = 0.01
"""At most: balanced accuracy lost on what the change leaves as it was."""


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

    def line(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"figure": "goal", **asdict(self), "met": self.met}


def judged(outcomes: Outcomes) -> list[Goal]:
    """Return what medloop reached of every goal that was measured."""
    if MEDLOOP not in outcomes.methods:
        return []
    return [
        goal
        for scenario, drifts in outcomes.scenarios.items()
        for goal in _of(outcomes, ScenarioName(scenario), drifts)
    ]


def _of(outcomes: Outcomes, scenario: ScenarioName, drifts: list[str]) -> Iterator[Goal]:
    last = outcomes.counts(drifts)[-1]
    if scenario is ScenarioName.NEW_CLASS:
        recall = outcomes.recall_after(MEDLOOP, drifts, NEW_CLASS_IMAGES).mean
        name = f"new class: its recall after {NEW_CLASS_IMAGES} images of it"
        yield Goal(name, recall, NEW_CLASS_RECALL, True)
        yield _old(outcomes, "new class: old classes' loss", drifts, last)
        return
    for name, labels, bound in {
        ScenarioName.DATA_DRIFT: (
            ("data drift: gap closed", 128, GAP_AFTER_128),
            ("data drift: gap closed", 512, GAP_AFTER_512),
        ),
        ScenarioName.CONCEPT_DRIFT: (("label policy: gap closed", CONCEPT_LABELS, CONCEPT_GAP),),
        ScenarioName.SITE_CHANGE: (("another laboratory: gap closed", CONCEPT_LABELS, SITE_GAP),),
    }[scenario]:
        share = outcomes.closed(MEDLOOP, drifts, labels).mean
        yield Goal(f"{name} after {labels} labels", share, bound, True)
    what = {
        ScenarioName.DATA_DRIFT: "data drift: old domain's loss",
        ScenarioName.CONCEPT_DRIFT: "label policy: loss on what it leaves",
        ScenarioName.SITE_CHANGE: "another laboratory: old one's loss",
    }[scenario]
    yield _old(outcomes, what, drifts, last)


def _old(outcomes: Outcomes, name: str, drifts: list[str], labels: int) -> Goal:
    loss = outcomes.old_loss(MEDLOOP, drifts, labels).mean
    return Goal(f"{name} after {labels} labels", loss, OLD_LOSS, False)
