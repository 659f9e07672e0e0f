"""Knowledge distillation: learn the labels, how the teacher weighs the classes, and what it sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def distillation_loss(
    student_BN: Tensor,
    teacher_BN: Tensor,
    labels_B: Tensor,
    *,
    alpha: float,
    temperature: float,
    trusted_B: Tensor | None = None,
) -> Tensor:
    """α·CE(y, student) + (1−α)·T²·KL(teacher ‖ student) on logits (Hinton et al., arXiv 1503.02531, §2).

    Args:
        student_BN: student's logits.
        teacher_BN: teacher's logits; may have fewer classes than the student, whose first ones are meant.
        labels_B: true classes, int64.
        alpha: weight of the labels, 0 to 1.
        temperature: T, softens both distributions.
        trusted_B: bool; where False the teacher is not followed and the label alone has full weight.
    """
    label_loss_B = functional.cross_entropy(student_BN, labels_B, reduction="none")
    divergence_B = divergence(student_BN, teacher_BN, temperature)
    mixed_B = alpha * label_loss_B + (1 - alpha) * divergence_B
    if trusted_B is not None:
        mixed_B = torch.where(trusted_B, mixed_B, label_loss_B)
    return mixed_B.mean()


def divergence(student_BN: Tensor, teacher_BN: Tensor, temperature: float) -> Tensor:
    """T²·KL(teacher ‖ student) of each image (B,), over the classes that the teacher has."""
    known = teacher_BN.shape[1]
    divergence_BN = functional.kl_div(
        (student_BN[:, :known] / temperature).log_softmax(dim=1),
        (teacher_BN / temperature).log_softmax(dim=1),
        log_target=True,
        reduction="none",
    )
    return temperature**2 * divergence_BN.sum(dim=1)


def agrees_with_label(teacher_BN: Tensor, labels_B: Tensor) -> Tensor:
    """Where the teacher's class is the label's (bool, (B,)).

    Elsewhere the teacher is wrong or keeps to an old reading policy, and following it would fight the label.
    """
    return teacher_BN.argmax(dim=1) == labels_B


class FeatureProjection(nn.Module):
    """Learns beside the student to say its tokens in the teacher's terms; of no use after training.

    BiTMedViT's distillation has such a term (arXiv 2510.13760): the mean square between projected last-block
    tokens and the teacher's. Here it is a share of the teacher's own variance, so that one weight fits all.

    Args:
        width: of both networks; it starts as the identity, since the student starts as the teacher.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        with torch.no_grad():
            nn.init.eye_(self.linear.weight)
            self.linear.bias.zero_()

    def forward(self, student_BTD: Tensor, teacher_BTD: Tensor) -> Tensor:
        """Mean square of what is missing, as a share of the teacher's variance."""
        missing = functional.mse_loss(self.linear(student_BTD), teacher_BTD)
        return missing / teacher_BTD.var().clamp(min=1e-6)
