"""The plan of each strategy."""

from __future__ import annotations

import pytest
from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD, SHALLOW_EWC, STRATEGIES
from medloop_model.training.strategies import article_plan, measured_plan

CLASSES = ("effusion", "normal")


@pytest.mark.parametrize("slides", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_measured_plan_is_of_what_was_asked_for_and_rehearses(strategy: str, slides: bool) -> None:
    plan = measured_plan(strategy, CLASSES, 7, slides=slides)
    assert (plan.strategy, plan.classes, plan.seed) == (strategy, CLASSES, 7)
    assert plan.rehearsal_steps > 0


def test_under_another_scanner_slides_are_transplanted_and_other_images_restyled() -> None:
    stained, grey = (measured_plan(SHALLOW_EWC, CLASSES, slides=slides) for slides in (True, False))
    assert (stained.transplanted > 0, stained.restyled) == (True, 0)
    assert (grey.transplanted, grey.restyled > 0) == (0, True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_article_rehearses_nothing(strategy: str) -> None:
    plan = article_plan(strategy, CLASSES, 7)
    assert (plan.strategy, plan.classes, plan.seed) == (strategy, CLASSES, 7)
    assert (plan.rehearsal_steps, plan.rehearsal_batch, plan.augmentation) == (0, 0, 0)
    assert (plan.restyled, plan.transplanted, plan.discriminant_images) == (0, 0, 0)


def test_the_article_holds_shallow_layers_by_ewc_and_all_of_them_by_a_teacher_followed_everywhere() -> None:
    assert article_plan(SHALLOW_EWC, CLASSES).ewc_lambda > 0
    distilled = article_plan(DISTIL_ALL, CLASSES)
    assert distilled.alpha < 1
    assert not distilled.masked
    assert article_plan(EXPAND_HEAD, CLASSES).alpha == 1
