"""How one adaptation trains: every number it depends on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of a `StreamingLearner`; `strategies` has measured ones, and the source article's.

    Args:
        strategy: `shallow-ewc`, `distil-all` or `expand-head`.
        classes: the model's classes, then new ones.
        learning_rate: of AdamW.
        rehearsal_steps: optimiser steps beside the one on each new mini-batch.
        rehearsal_batch: examples a step draws from each memory, new and old.
        warm_up_steps: steps in which the rate rises from 0, since Adam's first steps are its wildest.
        ewc_lambda: λ of the EWC penalty, on Fisher information of mean 1; 0 switches it off.
        alpha: weight of the labels beside the teacher's logits; 1 switches distillation off.
        masked: whether the teacher is followed only where it agrees with the label.
        temperature: T of the distillation.
        retention: weight of answering old examples as the base model does, where it is right about them
            (learning without forgetting, arXiv 1606.09282, on what is rehearsed).
        doubt: standard errors by which new labels must agree less with the base model's answers of a class
            than old labels did, for that class's old examples to be left out (`distil-all`).
        average_decay: of the moving average of weights that is exported; 0 exports the last weights.
        augmentation: strength, 0 to 1.
        everything: whether all parameters move, whatever the strategy.
        restyled: old examples that a step shows as the new scanner would (`restyle`), beside its others.
        revisited: examples that a step shows as another old domain's scanner would, if there are several,
            beside its others; an even number.
        returning: share of the way from the base model's weights to the learned ones that is exported when
            the new images come from a known scanner: little is to be learned there, and the mean of both is
            better on all known scanners (WiSE-FT, arXiv 2109.01903).
        first_steps: optimiser steps more on the first mini-batch, from which restyled images teach already.
        transplanted: old examples that a step shows in new surroundings (`transplant`), beside its others.
        discriminant_images: augmented examples of each domain that the exported head is fitted to in closed
            form (`discriminant`); 0 exports the trained head.
        shrinkage: λ of the discriminant's covariance.
        memory_bytes: of the remembered images and what is kept beside them; half for old ones, half for new.
        fisher_images: examples that the candidate's own Fisher information is measured on.
        fisher_decay: γ, share of the running Fisher information that stays.
        seed: of batches and augmentation.
        threads: of torch; another number may round differently.
    """

    strategy: str
    classes: tuple[str, ...]
    learning_rate: float = 1e-3
    rehearsal_steps: int = 5
    rehearsal_batch: int = 16
    warm_up_steps: int = 10
    ewc_lambda: float = 0.0
    alpha: float = 1.0
    masked: bool = True
    temperature: float = 2.0
    retention: float = 0.0
    doubt: float = 2.0
    average_decay: float = 0.97
    augmentation: float = 0.5
    everything: bool = False
    restyled: int = 0
    revisited: int = 0
    returning: float = 1.0
    first_steps: int = 0
    transplanted: int = 0
    discriminant_images: int = 0
    shrinkage: float = 0.3
    memory_bytes: int = 64 << 20
    fisher_images: int = 64
    fisher_decay: float = 0.7
    seed: int = 0
    threads: int = 1
