"""What a learner exports: the averaged weights, a head in closed form if planned, and what mattered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from medloop_model.checkpoint import ModelPackage, Tensors
from medloop_model.network import BiTMedViT
from medloop_model.training.discriminant import place_head
from medloop_model.training.ewc import fisher_diagonal, merge_fisher, normalise_fisher
from medloop_model.training.export import export_package
from medloop_model.training.learner_state import LearnerState
from medloop_model.training.showing import Showing


def candidate(
    network: BiTMedViT, state: LearnerState, showing: Showing, fisher: Mapping[str, Tensor]
) -> ModelPackage:
    """A state's model, packed, with its running Fisher information and no reference.

    Args:
        network: with the averaged weights; its head may be placed anew.
        state: the memories, and what is counted.
        showing: the plan, and how its images are varied.
        fisher: how much each parameter mattered before, normalised; empty if that isn't known.
    """
    plan = showing.plan
    if plan.discriminant_images:
        _place_head(network, state, showing)
    provenance = {
        "plan": asdict(plan),
        "new_examples": state.seen,
        "labels_corrected": state.corrected,
        "quarantined": state.quarantined,
        "steps": state.steps,
    }
    return export_package(network, provenance, _running_fisher(network, state, showing, fisher))


def _place_head(network: BiTMedViT, state: LearnerState, showing: Showing) -> None:
    """Fit the head to augmented examples of both domains, and of old cells in new surroundings."""
    count = showing.plan.discriminant_images
    generator = _generator(showing)
    drawn = [memory.draw(count, generator) for memory in (state.old, state.new) if len(memory)]
    domains = [(examples.pixels, examples.labels) for examples in drawn]
    if showing.plan.transplanted and len(state.old) and len(state.new):
        domains.append(showing.transplanted(state.old, state.new, count, generator))
    varied = [(showing.varied(pixels_BHWC, generator), labels_B) for pixels_BHWC, labels_B in domains]
    if varied:
        place_head(network, varied, showing.plan.shrinkage)


def _running_fisher(
    network: BiTMedViT, state: LearnerState, showing: Showing, fisher: Mapping[str, Tensor]
) -> Tensors:
    """Online EWC: what mattered so far and what matters on the new domain, if anything of that is known."""
    if not len(state.new):
        return {name: values.numpy().astype(np.float16) for name, values in fisher.items()}
    generator = _generator(showing)
    drawn = state.new.draw(showing.plan.fisher_images, generator)
    recent = normalise_fisher(fisher_diagonal(network, drawn.pixels, generator))
    merged = merge_fisher(fisher, recent, showing.plan.fisher_decay) if fisher else recent
    return {name: values.numpy().astype(np.float16) for name, values in merged.items()}


def _generator(showing: Showing) -> torch.Generator:
    """One of its own, so that exporting draws nothing from the stream's."""
    return torch.Generator().manual_seed(showing.plan.seed)
