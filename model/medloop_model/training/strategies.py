"""The plan of each strategy: the one that was measured to work, and the source article's."""

from __future__ import annotations

from dataclasses import replace

from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD, SHALLOW_EWC
from medloop_model.training.plan import TrainingPlan


def measured_plan(
    strategy: str, classes: tuple[str, ...], seed: int = 0, *, slides: bool = False
) -> TrainingPlan:
    """Return the plan that was measured to work for a strategy.

    Args:
        strategy, classes, seed: as in the plan.
        slides: whether the images are stained slides. Another laboratory's differ in more than exposure,
            and a few dozen are labelled: everything moves, slowly, and old cells are transplanted. A new
            class has as few, and the head is fitted to it in closed form.
    """
    plan = TrainingPlan(strategy, classes, seed=seed)
    if strategy == SHALLOW_EWC and slides:
        return replace(
            plan,
            everything=True,
            learning_rate=5e-4,
            rehearsal_steps=7,
            rehearsal_batch=12,
            retention=0.5,
            transplanted=12,
            discriminant_images=128,
        )
    if strategy == SHALLOW_EWC:
        return replace(
            plan, everything=True, retention=1.0, restyled=16, revisited=16, returning=0.5, first_steps=100
        )
    if strategy == DISTIL_ALL:
        # Readers may go by what augmentation changes: how faint a shadow is, how large. Without any the
        # new policy is learned faster still, and what it leaves as it was is forgotten: half as much.
        return replace(plan, alpha=0.7, rehearsal_steps=10, retention=1.0, augmentation=0.25)
    if strategy == EXPAND_HEAD and slides:
        return replace(plan, learning_rate=1e-2, rehearsal_steps=1, discriminant_images=128)
    if strategy == EXPAND_HEAD:
        return replace(plan, learning_rate=1e-2, rehearsal_steps=20, augmentation=0.0)
    return plan


def article_plan(strategy: str, classes: tuple[str, ...], seed: int = 0) -> TrainingPlan:
    """Return the source article's rules to the letter: one update a mini-batch, and nothing is rehearsed.

    Shallow layers with EWC; all layers with a teacher that is followed everywhere; a new row on a frozen
    backbone. λ, α and the rates are ours: the article gives none.
    """
    plan = TrainingPlan(strategy, classes, seed=seed, rehearsal_steps=0, rehearsal_batch=0, augmentation=0.0)
    if strategy == SHALLOW_EWC:
        return replace(plan, ewc_lambda=0.1)
    if strategy == DISTIL_ALL:
        return replace(plan, alpha=0.7, masked=False)
    return replace(plan, learning_rate=1e-2)
