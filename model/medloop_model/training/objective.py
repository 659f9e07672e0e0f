"""What a step makes smaller: labels, the teacher, the base model's old answers, and what mattered before.

Shape suffixes: B batch · H, W rows, columns · C channels · N classes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medloop_model.engine import Engine
from medloop_model.network import BiTMedViT
from medloop_model.training.distillation import agrees_with_label, distillation_loss, divergence
from medloop_model.training.ewc import ewc_penalty
from medloop_model.training.images import to_images
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.showing import Shown


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of one adaptation.

    Args:
        plan: the weights of its terms.
        base: the model that is adapted, packed: it answers several times faster than its network would.
        teacher: full precision; None where the plan doesn't distil.
        moving: the parameters that are trained.
        anchor: their values before, by name.
        fisher: how much each mattered, by name.
    """

    plan: TrainingPlan
    base: Engine
    teacher: BiTMedViT | None
    moving: Mapping[str, Tensor]
    anchor: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]

    def loss(self, logits_BN: Tensor, shown: Shown) -> Tensor:
        """The loss of one batch, a scalar.

        Args:
            logits_BN: the network's.
            shown: what it was shown.
        """
        labels_B, old = shown.labels, shown.rehearsed
        loss = self._label_loss(logits_BN, shown.pixels, labels_B)
        if self.plan.retention:
            forgotten_B = self._forgotten(logits_BN[old], shown.remembered, labels_B[old])
            loss = loss + self.plan.retention * forgotten_B.sum() / len(labels_B)
        if self.plan.ewc_lambda:
            penalty = ewc_penalty(self.moving.items(), self.anchor, self.fisher)
            loss = loss + self.plan.ewc_lambda * penalty
        return loss

    def _label_loss(self, logits_BN: Tensor, pixels_BHWC: Tensor, labels_B: Tensor) -> Tensor:
        if self.teacher is None:
            return functional.cross_entropy(logits_BN, labels_B)
        with torch.no_grad():
            teacher_BN = self.teacher(pixels_BHWC)
        return distillation_loss(
            logits_BN,
            teacher_BN,
            labels_B,
            alpha=self.plan.alpha,
            temperature=self.plan.temperature,
            trusted_B=agrees_with_label(teacher_BN, labels_B) if self.plan.masked else None,
        )

    def _forgotten(self, logits_BN: Tensor, pixels_BHWC: Tensor, labels_B: Tensor) -> Tensor:
        """How far the answers to old examples are from the base model's, where those are right (B,)."""
        base_BN = torch.from_numpy(self.base(to_images(pixels_BHWC)).logits)
        divergence_B = divergence(logits_BN, base_BN, self.plan.temperature)
        return divergence_B * agrees_with_label(base_BN, labels_B)
