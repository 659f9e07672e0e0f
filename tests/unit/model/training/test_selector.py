"""The selector as a table: case → what is done, which fields the plan has, and what is said."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from medloop_model.architecture import Architecture, ward
from medloop_model.checkpoint import ModelPackage, save_teacher
from medloop_model.network import BiTMedViT
from medloop_model.training.export import export_teacher
from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD, SHALLOW_EWC
from medloop_model.training.selector import (
    RULES,
    STRATEGY_OF,
    Bounds,
    Cause,
    Choice,
    Labels,
    ModelFacts,
    Recalibration,
    choose,
)
from medloop_model.training.strategies import measured_plan
from medloop_schemas import Diagnosis
from medloop_services.event_aggregation.diagnosis import STRATEGIES

TWO = ("normal", "opacity")
MODEL = ModelFacts(classes=TWO, fisher=True, teacher_classes=TWO, slides=False)
PLENTY = Labels(old=100, new=100)


@dataclass(frozen=True)
class Row:
    """A case, and what is to come of it; `says` is part of one of the reasons."""

    name: str
    cause: Cause
    model: ModelFacts = MODEL
    labels: Labels = PLENTY
    bounds: Bounds | None = None
    new_classes: tuple[str, ...] = ()
    plan: dict[str, Any] | None = None
    recalibration: Recalibration | None = None
    says: str = ""


TABLE = [
    Row(
        "a new scanner",
        Cause.DATA_DRIFT,
        plan={"strategy": SHALLOW_EWC, "restyled": 16, "ewc_lambda": 0.0, "alpha": 1.0, "retention": 1.0},
        says="as the new scanner would",
    ),
    Row(
        "a new scanner, by the article",
        Cause.DATA_DRIFT,
        bounds=Bounds(article=True),
        plan={"strategy": SHALLOW_EWC, "ewc_lambda": 0.1, "everything": False, "rehearsal_steps": 0},
        says="to the letter",
    ),
    Row(
        "a new scanner, no Fisher information",
        Cause.DATA_DRIFT,
        model=replace(MODEL, fisher=False),
        bounds=Bounds(article=True),
        plan={"strategy": SHALLOW_EWC, "ewc_lambda": 0.0},
        says="there is no EWC",
    ),
    Row(
        "a new scanner, no old labels",
        Cause.DATA_DRIFT,
        labels=Labels(old=0, new=100),
        plan={"strategy": SHALLOW_EWC, "retention": 0.0, "restyled": 0, "first_steps": 0},
        says="none can be rehearsed",
    ),
    Row(
        "another laboratory's slides",
        Cause.DATA_DRIFT,
        model=replace(MODEL, slides=True),
        labels=Labels(old=100, new=24),
        plan={"everything": True, "transplanted": 12, "discriminant_images": 128, "ewc_lambda": 0.0},
        says="fitted in closed form",
    ),
    Row(
        "another laboratory's slides, no old cells",
        Cause.DATA_DRIFT,
        model=replace(MODEL, slides=True),
        labels=Labels(old=0, new=24),
        plan={"transplanted": 0, "discriminant_images": 128},
        says="none to transplant",
    ),
    Row(
        "a new policy",
        Cause.CONCEPT_DRIFT,
        plan={"strategy": DISTIL_ALL, "alpha": 0.7, "masked": True, "augmentation": 0.25},
        says="only where it agrees",
    ),
    Row(
        "a new policy, by the article",
        Cause.CONCEPT_DRIFT,
        bounds=Bounds(article=True),
        plan={"strategy": DISTIL_ALL, "alpha": 0.7, "masked": False},
        says="to the letter",
    ),
    Row(
        "a new policy, no teacher",
        Cause.CONCEPT_DRIFT,
        bounds=Bounds(article=True),
        model=replace(MODEL, teacher_classes=None),
        plan={"strategy": DISTIL_ALL, "alpha": 1.0},
        says="no teacher: the labels have full weight",
    ),
    Row(
        "a new policy, a teacher of other classes",
        Cause.CONCEPT_DRIFT,
        bounds=Bounds(article=True),
        model=replace(MODEL, teacher_classes=("opacity", "normal")),
        plan={"alpha": 1.0},
        says="knows other classes",
    ),
    Row(
        "a new class",
        Cause.NEW_CLASS,
        new_classes=("nodule",),
        plan={"strategy": EXPAND_HEAD, "classes": (*TWO, "nodule"), "discriminant_images": 0},
        says="the head gains a row",
    ),
    Row(
        "a new class of cells",
        Cause.NEW_CLASS,
        model=replace(MODEL, slides=True),
        new_classes=("nodule",),
        plan={"strategy": EXPAND_HEAD, "discriminant_images": 128},
        says="fitted in closed form",
    ),
    Row(
        "a new class that is known",
        Cause.NEW_CLASS,
        new_classes=("opacity",),
        says="No class is named that the model lacks",
    ),
    Row(
        "a new class, one of two is known",
        Cause.NEW_CLASS,
        new_classes=("opacity", "nodule"),
        plan={"classes": (*TWO, "nodule")},
    ),
    Row("other patients", Cause.PRIOR_SHIFT, recalibration=Recalibration(temperature=True)),
    Row(
        "other patients, no labels",
        Cause.PRIOR_SHIFT,
        labels=Labels(0, 0),
        recalibration=Recalibration(temperature=False),
        says="taken to be calibrated",
    ),
    Row("a broken device", Cause.SENSOR_FAULT, says="no pictures"),
    Row(
        "few labels",
        Cause.DATA_DRIFT,
        labels=Labels(old=100, new=15),
        says="15 labelled images since the change are too few: 16 are needed",
    ),
    Row(
        "a slow device",
        Cause.CONCEPT_DRIFT,
        bounds=Bounds(rehearsal_steps=3),
        plan={"rehearsal_steps": 3, "first_steps": 0},
        says="fewer steps",
    ),
    Row(
        "a strategy out of bounds",
        Cause.NEW_CLASS,
        bounds=Bounds(strategies=frozenset({SHALLOW_EWC})),
        new_classes=("nodule",),
        says="do not allow expand-head",
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_table(row: Row) -> None:
    choice = choose(row.cause, row.model, row.labels, row.bounds, new_classes=row.new_classes, seed=5)
    assert choice.recalibration == row.recalibration
    assert (choice.plan is None) == (row.plan is None)
    if choice.plan is not None and row.plan is not None:
        assert {name: getattr(choice.plan, name) for name in row.plan} == row.plan
        assert choice.plan.seed == 5
    assert any(row.says in reason.sentence for reason in choice.reasons)
    assert all(reason.sentence.endswith(".") for reason in choice.reasons)
    assert choice.reasons[0].code == row.cause


def test_every_rule_has_a_code_of_its_own() -> None:
    codes = [rule.reason.code for rule in RULES]
    assert len({*codes, *Cause}) == len(codes) + len(Cause)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize(
    ("choice", "codes"),
    [
        (choose(Cause.SENSOR_FAULT, MODEL, PLENTY), ["sensor-fault"]),
        (choose(Cause.PRIOR_SHIFT, MODEL, PLENTY), ["prior-shift", "temperature-fitted"]),
        (choose(Cause.PRIOR_SHIFT, MODEL, Labels(0, 0)), ["prior-shift", "no-labels"]),
        (choose(Cause.NEW_CLASS, MODEL, PLENTY), ["new-class", "no-new-class"]),
        (choose(Cause.DATA_DRIFT, MODEL, Labels(9, 0)), ["data-drift", "too-few-labels"]),
        (
            choose(Cause.DATA_DRIFT, MODEL, Labels(0, 99), Bounds(rehearsal_steps=2)),
            ["data-drift", "no-old-images", "nothing-to-restyle", "fewer-steps"],
        ),
        (
            choose(Cause.CONCEPT_DRIFT, MODEL, PLENTY, Bounds(strategies=frozenset())),
            ["concept-drift", "strategy-not-allowed"],
        ),
        (
            choose(Cause.CONCEPT_DRIFT, replace(MODEL, teacher_classes=None), PLENTY),
            ["concept-drift", "no-teacher"],
        ),
        (
            choose(Cause.DATA_DRIFT, replace(MODEL, fisher=False), PLENTY, Bounds(article=True)),
            ["data-drift", "article", "no-fisher"],
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_codes_are_what_programs_rely_on(choice: Choice, codes: list[str]) -> None:
    """Published: a code may be added, but none may change."""
    assert [reason.code for reason in choice.reasons] == codes


@pytest.mark.parametrize("labels", [PLENTY, Labels(0, 0), Labels(0, 10_000)])
@pytest.mark.parametrize("cause", [Cause.SENSOR_FAULT, Cause.PRIOR_SHIFT])
def test_whatever_there_is_these_causes_train_nothing(cause: Cause, labels: Labels) -> None:
    choice = choose(cause, MODEL, labels, new_classes=("nodule",))
    assert choice.plan is None
    assert cause is Cause.PRIOR_SHIFT or choice.recalibration is None


def test_nothing_that_applies_leaves_the_measured_plan() -> None:
    for cause, strategy in STRATEGY_OF.items():
        names = ("nodule",) if cause is Cause.NEW_CLASS else ()
        choice = choose(cause, MODEL, PLENTY, new_classes=names, seed=2)
        assert choice.plan == measured_plan(strategy, (*TWO, *names), 2)


def test_causes_and_strategies_are_those_of_the_events() -> None:
    assert {cause.value for cause in Cause} == {diagnosis.value for diagnosis in Diagnosis}
    assert {cause.value: strategy for cause, strategy in STRATEGY_OF.items()} == {
        diagnosis.value: strategy.value for diagnosis, strategy in STRATEGIES.items()
    }


def test_facts_are_read_from_a_package_and_its_teacher(tmp_path: Path) -> None:
    tiny = Architecture(8, 1, 4, 16, 1, 2, 2, TWO)
    path = tmp_path / "teacher.safetensors"
    save_teacher(export_teacher(BiTMedViT(tiny.full_precision()), {}), path)
    assert ModelFacts.of(ModelPackage(tiny), path) == ModelFacts(TWO, False, TWO, False)
    assert ModelFacts.of(ModelPackage(ward(32, 3, TWO)), None) == ModelFacts(TWO, False, None, True)
