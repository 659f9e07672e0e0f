"""Fine-tuning on a stream: one optimiser step a labelled mini-batch, and some more on what is remembered.

Nothing waits for a data set to be collected. Each mini-batch is trained on when it arrives; then a few
steps rehearse class-balanced batches of the new examples seen so far and of remembered old ones. What is
exported is the moving average of the weights, since single steps swing by several points of accuracy.

On slides, where a new laboratory has a few dozen labelled cells, steps may also show old cells in new
surroundings, and the head may be placed in closed form at the export.

Shape suffixes: B batch · H, W rows, columns · C channels · D embedding · N classes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from medloop_model.checkpoint import ModelPackage, Tensors, load_teacher
from medloop_model.errors import ShapeError
from medloop_model.network import BitLinear, BiTMedViT
from medloop_model.training.adam import AdamW
from medloop_model.training.discriminant import place_head
from medloop_model.training.distillation import agrees_with_label, distillation_loss, divergence
from medloop_model.training.ewc import ewc_penalty, fisher_diagonal, merge_fisher, normalise_fisher
from medloop_model.training.export import export_package, network_from
from medloop_model.training.freeze import DISTIL_ALL, freeze
from medloop_model.training.head import expand_head, imprint
from medloop_model.training.images import augment, to_labels, to_pixels, usual_bounds
from medloop_model.training.memory import RehearsalMemory
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.policy import confirmed_classes
from medloop_model.training.quantizers import flipped_codes
from medloop_model.training.transplant import transplant


@dataclass(frozen=True)
class Metrics:
    """What one mini-batch did.

    Args:
        seen: new examples so far.
        steps: optimiser steps so far.
        loss: mean over this update's steps.
        accuracy: on the mini-batch before it was trained on.
        flipped: share of ternary codes that differ from the base model's.
    """

    seen: int
    steps: int
    loss: float
    accuracy: float
    flipped: float


class StreamingLearner:
    """Adapts one model to one drift; the same examples in the same order give the same bytes.

    Args:
        package: the model to adapt, with its latent weights, and its Fisher information if the plan uses EWC.
        teacher_path: full-precision teacher, needed if the plan distils.
        plan: how.

    Raises:
        ShapeError: the plan's classes don't start with the model's.
        ValueError: an unknown strategy, or no teacher or Fisher information where the plan needs it.
        CorruptCheckpoint, PickledCheckpoint: the teacher can't be read.
    """

    def __init__(self, package: ModelPackage, teacher_path: Path | None, plan: TrainingPlan) -> None:
        if plan.ewc_lambda and not package.fisher:
            raise ValueError("EWC needs Fisher information: load the package with its fisher part")
        if plan.alpha < 1 and teacher_path is None:
            raise ValueError("distillation needs a teacher: give its path, or set alpha to 1")
        torch.set_num_threads(plan.threads)
        self.plan = plan
        self.network = expand_head(network_from(package), plan.classes)
        self.old, self.new = (RehearsalMemory(self.network.architecture) for _ in range(2))
        self._bounds = usual_bounds(self.network.architecture)
        self._moving = freeze(self.network, DISTIL_ALL if plan.everything else plan.strategy)
        self._anchor = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self._average = {name: p.detach().clone() for name, p in self._moving.items()}
        self._fisher = _expand_fisher(package, self._anchor)
        self._teacher = network_from(load_teacher(teacher_path)) if teacher_path and plan.alpha < 1 else None
        self._base = network_from(package)
        self._base_answers = {memory: memory.labels_B[:0] for memory in (self.old, self.new)}
        self._optimiser = AdamW(self._moving.values())
        self._generator = torch.Generator().manual_seed(plan.seed)
        self._steps = 0
        self._imprinted = len(package.architecture.classes)

    def remember(self, images: NDArray[np.uint8], labels: NDArray[np.integer]) -> None:
        """Keep labelled examples of the old domain for rehearsal; no step is taken.

        Raises:
            ShapeError: images or labels don't fit the model.
        """
        self.old.add(images, labels)

    def update(self, images: NDArray[np.uint8], labels: NDArray[np.integer]) -> Metrics:
        """Learn from one mini-batch of the new domain.

        Args:
            images: uint8 (B, H, W) or (B, H, W, C).
            labels: (B,) indices of the plan's classes.

        Raises:
            ShapeError: images or labels don't fit the model, or there are none.
        """
        pixels_BHWC = to_pixels(images, self.network.architecture)
        labels_B = to_labels(labels, self.network.architecture)
        if not len(labels_B):
            raise ShapeError("a mini-batch needs at least one labelled image")
        self.new.add(images, labels)
        with torch.no_grad():
            accuracy = (self.network(pixels_BHWC).argmax(dim=1) == labels_B).float().mean()
        self._imprint_new_classes()
        trusted_old = self._trusted_old()
        losses = [self._step(pixels_BHWC, labels_B, trusted_old)]
        for _ in range(self.plan.rehearsal_steps):
            drawn = self.new.draw(self.plan.rehearsal_batch, self._generator)
            losses.append(self._step(*drawn, trusted_old))
        return Metrics(
            seen=len(self.new),
            steps=self._steps,
            loss=float(np.mean(losses)),
            accuracy=float(accuracy),
            flipped=flipped_codes(*(self._ternary(weights) for weights in (self._anchor, self._moving))),
        )

    def package(self) -> ModelPackage:
        """The adapted model, packed, with its running Fisher information and no reference.

        Exporting changes nothing: the stream can go on.
        """
        network = BiTMedViT(self.network.architecture)
        network.load_state_dict({**self.network.state_dict(), **self._average})
        if self.plan.discriminant_images:
            self._place_head(network)
        provenance = {"plan": asdict(self.plan), "new_examples": len(self.new), "steps": self._steps}
        return export_package(network.eval(), provenance, fisher=self._running_fisher(network))

    def _step(self, pixels_BHWC: Tensor, labels_B: Tensor, old: RehearsalMemory) -> float:
        """One optimiser step on new examples, remembered ones, and remembered ones in new surroundings."""
        shown = [(pixels_BHWC, labels_B), old.draw(self.plan.rehearsal_batch, self._generator)]
        rehearsed = slice(len(shown[0][1]), len(shown[0][1]) + len(shown[1][1]))
        if self.plan.transplanted:
            shown.append(self._transplanted(old, self.plan.transplanted, self._generator))
        pixels_BHWC, labels_B = (torch.cat(parts) for parts in zip(*shown, strict=True))
        loss = self._loss(self._varied(pixels_BHWC, self._generator), labels_B, rehearsed)
        self._optimiser.zero_gradients()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self._moving.values(), 1.0)
        self._steps += 1
        risen = min(1.0, self._steps / max(self.plan.warm_up_steps, 1))
        self._optimiser.step(self.plan.learning_rate * risen)
        self._follow_average()
        return loss.item()

    def _transplanted(
        self, old: RehearsalMemory, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        pixels_BHWC, labels_B = old.draw(count, generator)
        return transplant(pixels_BHWC, self.new.pixels_BHWC, generator), labels_B

    def _place_head(self, network: BiTMedViT) -> None:
        """Fit the head to augmented examples of both domains, and of old cells in new surroundings."""
        count = self.plan.discriminant_images
        generator = torch.Generator().manual_seed(self.plan.seed)  # its own, so that exporting draws nothing
        domains = [memory.draw(count, generator) for memory in (self.old, self.new) if len(memory)]
        if self.plan.transplanted and len(self.old) and len(self.new):
            domains.append(self._transplanted(self.old, count, generator))
        varied = [(self._varied(pixels_BHWC, generator), labels_B) for pixels_BHWC, labels_B in domains]
        if varied:
            place_head(network, varied, self.plan.shrinkage)

    def _varied(self, pixels_BHWC: Tensor, generator: torch.Generator) -> Tensor:
        if not self.plan.augmentation:
            return pixels_BHWC
        return augment(pixels_BHWC, generator, self.plan.augmentation, self._bounds)

    def _loss(self, pixels_BHWC: Tensor, labels_B: Tensor, rehearsed: slice) -> Tensor:
        logits_BN = self.network(pixels_BHWC)
        if self._teacher is None:
            loss = functional.cross_entropy(logits_BN, labels_B)
        else:
            with torch.no_grad():
                teacher_BN = self._teacher(pixels_BHWC)
            loss = distillation_loss(
                logits_BN,
                teacher_BN,
                labels_B,
                alpha=self.plan.alpha,
                temperature=self.plan.temperature,
                trusted_B=agrees_with_label(teacher_BN, labels_B),
            )
        if self.plan.retention:
            forgotten_B = self._forgotten(logits_BN[rehearsed], pixels_BHWC[rehearsed], labels_B[rehearsed])
            loss = loss + self.plan.retention * forgotten_B.sum() / len(labels_B)
        if self.plan.ewc_lambda:
            loss = loss + self.plan.ewc_lambda * ewc_penalty(self._moving.items(), self._anchor, self._fisher)
        return loss

    def _forgotten(self, logits_BN: Tensor, pixels_BHWC: Tensor, labels_B: Tensor) -> Tensor:
        """How far the answers to old examples are from the base model's, where those are right (B,)."""
        with torch.no_grad():
            base_BN = self._base(pixels_BHWC)
        divergence_B = divergence(logits_BN, base_BN, self.plan.temperature)
        return divergence_B * agrees_with_label(base_BN, labels_B)

    @torch.no_grad()
    def _follow_average(self) -> None:
        # The share of the past grows with the steps, so that the base model itself is soon forgotten.
        decay = min(self.plan.average_decay, self._steps / (self._steps + 9))
        for name, parameter in self._moving.items():
            self._average[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def _imprint_new_classes(self) -> None:
        """Start the rows of new classes as soon as each has an example."""
        while self._imprinted < len(self.plan.classes):
            mine_B = self.new.labels_B == self._imprinted
            if not mine_B.any():
                return
            pixels_BHWC = torch.cat([self.old.pixels_BHWC, self.new.pixels_BHWC[~mine_B]])
            imprint(
                self.network,
                self._imprinted,
                mine_BD=self.network.embed(self.new.pixels_BHWC[mine_B]),
                others_BD=self.network.embed(pixels_BHWC),
            )
            self._imprinted += 1

    @torch.no_grad()
    def _trusted_old(self) -> RehearsalMemory:
        """What to rehearse beside new examples: all old ones, or those whose labels a new policy confirms."""
        if self.plan.strategy != DISTIL_ALL or not len(self.old):
            return self.old
        for memory in (self.old, self.new):
            answered = len(self._base_answers[memory])
            answers_B = self._base(memory.pixels_BHWC[answered:]).argmax(dim=1)
            self._base_answers[memory] = torch.cat([self._base_answers[memory], answers_B])
        found_N = confirmed_classes(
            self._base_answers[self.old],
            self.old.labels_B,
            self._base_answers[self.new],
            self.new.labels_B,
            doubt=self.plan.doubt,
        )
        confirmed_N = torch.ones(len(self.plan.classes), dtype=torch.bool)
        confirmed_N[: len(found_N)] = found_N
        return self.old.merged(self.new, confirmed_N)

    def _running_fisher(self, network: BiTMedViT) -> Tensors:
        """Online EWC: what mattered so far and what matters on the new domain."""
        generator = torch.Generator().manual_seed(self.plan.seed)  # its own, so that exporting draws nothing
        pixels_BHWC, _ = self.new.draw(self.plan.fisher_images, generator)
        recent = normalise_fisher(fisher_diagonal(network, pixels_BHWC, generator))
        merged = merge_fisher(self._fisher, recent, self.plan.fisher_decay) if self._fisher else recent
        return {name: fisher.numpy().astype(np.float16) for name, fisher in merged.items()}

    def _ternary(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The latent weights among `weights` that are rounded to ternary codes and may move."""
        names = [
            f"{name}.weight"
            for name, module in self.network.named_modules()
            if isinstance(module, BitLinear) and module.quantized
        ]
        return {name: weights[name] for name in names if name in self._moving}


def _expand_fisher(package: ModelPackage, anchor: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's Fisher information in the shape of the expanded network; new rows are free to move."""
    expanded = {}
    for name, values in package.fisher.items():
        expanded[name] = torch.zeros_like(anchor[name])
        expanded[name][tuple(slice(0, length) for length in values.shape)] = torch.from_numpy(
            values.astype(np.float32)
        )
    return expanded
