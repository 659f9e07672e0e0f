"""What the learning is aimed at; the table says MISSED where it is not reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cost_beside_avalanche import STEP
from medloop_services.replay.settings import ScenarioName
from methods import AVALANCHE_EWC, MEDLOOP
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

EROSION = 0.02
"""At most: balanced accuracy that any domain of ten drifts in a row loses since it was learned."""

STEP_MILLISECONDS, STEPS_OF_AVALANCHE = 25.0, 2.0
"""At most, and at least: one optimiser step on 16 images, one core, and Avalanche's EWC step beside it."""

MEGABYTES = 600.0
"""At most: peak memory of a process that learns."""


@dataclass(frozen=True)
class Goal:
    """A figure beside the bound that is aimed at."""

    name: str
    value: float
    bound: float
    at_least: bool
    unit: str = "share"

    @property
    def met(self) -> bool:
        """Whether it is kept."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def line(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"figure": "goal", **asdict(self), "met": self.met}


def judged(outcomes: Outcomes) -> list[Goal]:
    """Return what medloop reached of every goal that was measured."""
    goals = [
        goal
        for scenario, drifts in outcomes.scenarios.items()
        if MEDLOOP in outcomes.methods
        for group in _groups(ScenarioName(scenario), drifts)
        for goal in _of(outcomes, ScenarioName(scenario), group)
    ]
    lost = outcomes.erosion(MEDLOOP)
    if len(lost):
        worst = float(lost.mean(axis=0).max())
        goals.append(Goal("ten drifts in a row: most lost of any domain since", worst, EROSION, False))
    if outcomes.step_cost is not None:
        goals += _of_cost(outcomes.step_cost)
    return goals


def _groups(scenario: ScenarioName, drifts: list[str]) -> list[list[str]]:
    """Return which drifts are judged together: two policies are not, one is far harder than the other."""
    return [[drift] for drift in drifts] if scenario is ScenarioName.CONCEPT_DRIFT else [drifts]


def _of_cost(cost: dict[str, Any]) -> Iterator[Goal]:
    times = cost["milliseconds"]
    yield Goal("one step at batch 16, ms", times[STEP], STEP_MILLISECONDS, False, "ms")
    if AVALANCHE_EWC in times:
        name = "Avalanche's EWC step, times medloop's"
        yield Goal(name, times[AVALANCHE_EWC] / times[STEP], STEPS_OF_AVALANCHE, True, "times")
    yield Goal("memory of a process that learns", cost["peak_megabytes"], MEGABYTES, False, "MB")


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
        ScenarioName.CONCEPT_DRIFT: (
            (f"label policy, {drifts[0]}: gap closed", CONCEPT_LABELS, CONCEPT_GAP),
        ),
        ScenarioName.SITE_CHANGE: (("another laboratory: gap closed", CONCEPT_LABELS, SITE_GAP),),
    }[scenario]:
        share = outcomes.closed(MEDLOOP, drifts, labels).mean
        yield Goal(f"{name} after {labels} labels", share, bound, True)
    what = {
        ScenarioName.DATA_DRIFT: "data drift: old domain's loss",
        ScenarioName.CONCEPT_DRIFT: f"label policy, {drifts[0]}: loss on what it leaves",
        ScenarioName.SITE_CHANGE: "another laboratory: old one's loss",
    }[scenario]
    yield _old(outcomes, what, drifts, last)


def _old(outcomes: Outcomes, name: str, drifts: list[str], labels: int) -> Goal:
    loss = outcomes.old_loss(MEDLOOP, drifts, labels).mean
    return Goal(f"{name} after {labels} labels", loss, OLD_LOSS, False)
