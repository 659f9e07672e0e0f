"""Peers of a few lines: one AdamW step on each mini-batch, on everything, on the head, or by the article.

Shape suffixes: B batch · H, W rows, columns · C channels · D embedding · N classes
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from adapting import Method, Observe
from medloop_model.checkpoint import load_teacher
from medloop_model.network import BiTMedViT
from medloop_model.training.adam import AdamW
from medloop_model.training.distillation import distillation_loss
from medloop_model.training.ewc import ewc_penalty
from medloop_model.training.export import export_package, network_from
from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD
from medloop_model.training.head import expand_head
from medloop_model.training.images import to_labels, to_pixels
from peer_settings import PeerSettings
from problem import Problem
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[BiTMedViT, Tensor, Tensor], Tensor]
"""Of a network on pixels (B, H, W, C) and labels (B,)."""

ALPHA, TEMPERATURE = 0.5, 2.0
"""Of the article's distillation."""


def fine_tune(settings: PeerSettings) -> Method:
    """Return plain fine-tuning of all parameters."""

    def learn(problem: Problem, observe: Observe) -> None:
        network = network_of(problem)
        one_step_a_batch(network, network.parameters(), problem, observe, loss=label_loss, rate=settings.rate)

    return learn


def head_only(settings: PeerSettings) -> Method:
    """Return fine-tuning of the head on a frozen backbone."""

    def learn(problem: Problem, observe: Observe) -> None:
        network = network_of(problem)
        one_step_a_batch(
            network, network.head.parameters(), problem, observe, loss=label_loss, rate=settings.rate
        )

    return learn


def article(settings: PeerSettings) -> Method:
    """Return the article's rule for the kind of drift, with nothing added.

    Data drift: patch embedding, first blocks and head move, held by EWC. Concept drift: everything moves,
    distilled from the teacher before deployment, whatever it says of an image. New class: the backbone and
    the old classes' rows stay, a new row is trained.
    """

    def learn(problem: Problem, observe: Observe) -> None:
        network = network_of(problem)
        loss, moving = label_loss, list(network.parameters())
        if problem.strategy == EXPAND_HEAD:
            moving = list(network.head.parameters())
            _keep_old_rows(network.head, len(problem.package.architecture.classes))
        elif problem.strategy == DISTIL_ALL:
            loss = _distilled(problem)
        else:
            moving = [p for name, p in network.named_parameters() if is_shallow(name, network)]
            loss = _held_by_ewc(problem, network, settings.weight)
        one_step_a_batch(network, moving, problem, observe, loss=loss, rate=settings.rate)

    return learn


def network_of(problem: Problem) -> BiTMedViT:
    """The deployed network, with rows for new classes as torch starts a linear layer."""
    network = expand_head(network_from(problem.package), problem.classes)
    known, width = len(problem.package.architecture.classes), network.head.in_features
    generator = torch.Generator().manual_seed(problem.seed)
    with torch.no_grad():
        for rows in (network.head.weight[known:], network.head.bias[known:]):
            rows.uniform_(-(width**-0.5), width**-0.5, generator=generator)
    return network.requires_grad_(True)


def one_step_a_batch(
    network: BiTMedViT,
    moving: Iterable[nn.Parameter],
    problem: Problem,
    observe: Observe,
    *,
    loss: Loss,
    rate: float,
) -> None:
    """Take one step on every mini-batch of the stream, in order, once."""
    moving = list(moving)
    network.requires_grad_(False)
    for parameter in moving:
        parameter.requires_grad_(True)
    optimiser = AdamW(moving)
    for batch in problem.batches():
        pixels_BHWC = to_pixels(batch.images, network.architecture)
        labels_B = to_labels(batch.labels, network.architecture)
        take_step(loss(network, pixels_BHWC, labels_B), optimiser, rate)
        observe(lambda: export_package(network, {}))


def take_step(loss: Tensor, optimiser: AdamW, rate: float) -> None:
    """Move the optimiser's parameters down a loss, with medloop's own optimiser."""
    optimiser.zero_gradients()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step(rate)


def label_loss(network: BiTMedViT, pixels_BHWC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy."""
    return functional.cross_entropy(network(pixels_BHWC), labels_B)


def is_shallow(name: str, network: BiTMedViT) -> bool:
    """Whether the article moves a parameter under data drift: all but the deep half of the blocks."""
    parts = name.split(".")
    return parts[0] != "blocks" or int(parts[1]) < (network.architecture.depth + 1) // 2


def _held_by_ewc(problem: Problem, network: BiTMedViT, strength: float) -> Loss:
    anchor = {name: p.detach().clone() for name, p in network.named_parameters()}
    fisher = {name: torch.from_numpy(f.astype("float32")) for name, f in problem.package.fisher.items()}

    def loss(network: BiTMedViT, pixels_BHWC: Tensor, labels_B: Tensor) -> Tensor:
        moving = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        return label_loss(network, pixels_BHWC, labels_B) + strength * ewc_penalty(moving, anchor, fisher)

    return loss


def _distilled(problem: Problem) -> Loss:
    if problem.teacher is None:
        return label_loss
    teacher = network_from(load_teacher(problem.teacher))

    def loss(network: BiTMedViT, pixels_BHWC: Tensor, labels_B: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_BN = teacher(pixels_BHWC)
        return distillation_loss(
            network(pixels_BHWC), teacher_BN, labels_B, alpha=ALPHA, temperature=TEMPERATURE
        )

    return loss


def _keep_old_rows(head: nn.Linear, known: int) -> None:
    def without_old(gradient: Tensor) -> Tensor:
        kept = gradient.clone()
        kept[:known] = 0
        return kept

    for parameter in head.parameters():
        parameter.register_hook(without_old)
