"""Which drifts are learned from: the scanner's, the laboratory's, the readers', and new classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from medloop_services.replay.dataset import DEFAULT_FILES
from medloop_services.replay.settings import ScenarioName

COUNTS = (16, 32, 64, 128, 256, 512)
"""Labelled images of the new domain after which a model is judged."""

CORRUPTIONS = ("scanner", "gaussian-noise", "gaussian-blur", "contrast-down", "brightness-up")
"""Chosen before anything was measured: one of several changes, and each kind alone."""

SEVERITIES = (2, 3, 4)

USUAL_HELD_OUT = 3
"""The class of MedNIST whose model the demo pretrains too; each other costs minutes once."""

JOURNEY = "ten drifts in a row"
"""Out and back five times, each from the model that the last one left."""

STEP_COST = "cost of a step"
"""Not a drift; a condition by its name all the same."""

QUICK = ("scanner 3", "site change", "policy", "new class 3")


@dataclass(frozen=True)
class Drift:
    """One change of the world.

    Attributes:
        name: of the row.
        scenario: what kind it is.
        file: its images, below the data folder.
        settings: of the scenario, beside seed and size.
    """

    name: str
    scenario: ScenarioName
    file: str
    settings: dict[str, Any] = field(default_factory=dict, hash=False)


def every_drift(held_out: Sequence[int]) -> Iterator[Drift]:
    """Return all drifts, with a new class for each of MedNIST's classes that is held out."""
    for corruption in CORRUPTIONS:
        for severity in SEVERITIES:
            changed = {"corruption": corruption, "severity": severity}
            yield _drift(f"{corruption} {severity}", ScenarioName.DATA_DRIFT, changed)
    yield _drift("site change", ScenarioName.SITE_CHANGE)
    yield _drift("policy", ScenarioName.CONCEPT_DRIFT)
    yield Drift("swapped names", ScenarioName.CONCEPT_DRIFT, DEFAULT_FILES[ScenarioName.NEW_CLASS])
    for label in held_out:
        yield _drift(f"new class {label}", ScenarioName.NEW_CLASS, {"held_out": label})


def _drift(name: str, scenario: ScenarioName, settings: dict[str, Any] | None = None) -> Drift:
    return Drift(name, scenario, DEFAULT_FILES[scenario], settings or {})
