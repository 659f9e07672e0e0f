"""Peers that rehearse from a buffer: experience replay and DER++.

Shape suffixes: B batch · H, W rows, columns · C channels · N classes
"""

from __future__ import annotations

import torch
from adapting import Method, Observe
from medloop_model.architecture import Architecture
from medloop_model.training.adam import AdamW
from medloop_model.training.export import export_package
from medloop_model.training.images import to_labels, to_pixels
from peer_settings import PeerSettings
from plain_learners import network_of, take_step
from problem import BATCH, REMEMBERED, Problem
from torch import Tensor
from torch.nn import functional


class Reservoir:
    """A uniform sample of all examples seen, of bounded size (Vitter 1985, algorithm R).

    Args:
        capacity: examples kept at most.
        generator: the source of chance.
    """

    def __init__(self, capacity: int, generator: torch.Generator) -> None:
        self.capacity, self.generator = capacity, generator
        self.seen = 0
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, pixels_BHWC: Tensor, labels_B: Tensor, logits_BN: Tensor) -> None:
        """See examples, with what the network answered to them."""
        for example in zip(pixels_BHWC, labels_B, logits_BN, strict=True):
            self.seen += 1
            if len(self.kept) < self.capacity:
                self.kept.append(example)
                continue
            place = int(torch.randint(self.seen, (1,), generator=self.generator))
            if place < self.capacity:
                self.kept[place] = example

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels, labels and logits of `count` examples, fewer where fewer are kept."""
        order = torch.randperm(len(self.kept), generator=self.generator)[:count].tolist()
        pixels_BHWC, labels_B, logits_BN = zip(*(self.kept[place] for place in order), strict=True)
        return torch.stack(pixels_BHWC), torch.stack(labels_B), torch.stack(logits_BN)


def experience_replay(settings: PeerSettings, steps: int = 1) -> Method:
    """Return experience replay (Chaudhry et al., arXiv 1902.10486): the mini-batch beside as many kept ones.

    Args:
        settings: its rate.
        steps: on each mini-batch, each beside another draw.
    """

    def learn(problem: Problem, observe: Observe) -> None:
        network = network_of(problem)
        buffer = filled_buffer(problem, network.architecture)
        optimiser = AdamW(network.parameters())
        for batch in problem.batches():
            pixels_BHWC = to_pixels(batch.images, network.architecture)
            labels_B = to_labels(batch.labels, network.architecture)
            for _ in range(steps):
                kept_BHWC, kept_B, _ = buffer.draw(BATCH)
                logits_BN = network(torch.cat([pixels_BHWC, kept_BHWC]))
                loss = functional.cross_entropy(logits_BN, torch.cat([labels_B, kept_B]))
                take_step(loss, optimiser, settings.rate)
            buffer.add(pixels_BHWC, labels_B, logits_BN[: len(labels_B)].detach())
            observe(lambda: export_package(network, {}))

    return learn


def dark_experience_replay(settings: PeerSettings) -> Method:
    """Return DER++ (Buzzega et al., arXiv 2004.07211), with α = β = `settings.weight`."""

    def learn(problem: Problem, observe: Observe) -> None:
        network = network_of(problem)
        buffer = filled_buffer(problem, network.architecture)
        optimiser = AdamW(network.parameters())
        for batch in problem.batches():
            pixels_BHWC = to_pixels(batch.images, network.architecture)
            labels_B = to_labels(batch.labels, network.architecture)
            first_BHWC, _, first_BN = buffer.draw(BATCH)
            second_BHWC, second_B, _ = buffer.draw(BATCH)
            logits_BN = network(torch.cat([pixels_BHWC, first_BHWC, second_BHWC]))
            parts = torch.split(logits_BN, [len(labels_B), len(first_BN), len(second_B)])
            loss = der_loss(
                (parts[0], labels_B),
                (parts[1], first_BN),
                (parts[2], second_B),
                alpha=settings.weight,
                beta=settings.weight,
            )
            take_step(loss, optimiser, settings.rate)
            buffer.add(pixels_BHWC, labels_B, parts[0].detach())
            observe(lambda: export_package(network, {}))

    return learn


def der_loss(
    new: tuple[Tensor, Tensor],
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    *,
    alpha: float,
    beta: float,
) -> Tensor:
    """CE(new) + α·MSE(logits of a first draw, those kept with it) + β·CE(a second draw) (eq. 6).

    Args:
        new: the network's logits (B, N) of new images, and their labels (B,).
        first: its logits (B, N) of a draw, and those that were kept with it (B, N).
        second: its logits (B, N) of another draw, and the labels kept (B,).
        alpha, beta: weights.
    """
    return (
        functional.cross_entropy(*new)
        + alpha * functional.mse_loss(*first)
        + beta * functional.cross_entropy(*second)
    )


@torch.no_grad()
def filled_buffer(problem: Problem, architecture: Architecture) -> Reservoir:
    """A buffer that has seen what is remembered from before the change, with the base network's logits."""
    buffer = Reservoir(REMEMBERED, torch.Generator().manual_seed(problem.seed))
    network = network_of(problem).eval()
    pixels_BHWC = to_pixels(problem.old.images, architecture)
    logits_BN = torch.cat([network(part) for part in torch.split(pixels_BHWC, BATCH)])
    buffer.add(pixels_BHWC, to_labels(problem.old.labels, architecture), logits_BN)
    return buffer
