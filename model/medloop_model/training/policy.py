"""Which old labels still hold after a reading policy has changed."""

from __future__ import annotations

import torch
from torch import Tensor


def confirmed_classes(
    old_answers_B: Tensor, old_labels_B: Tensor, new_answers_B: Tensor, new_labels_B: Tensor, *, doubt: float
) -> Tensor:
    """Tell the classes whose old labels new readers still confirm.

    Of the images that the base model gives a class, a share had that label under the old policy. A class is
    in doubt when the share under the new labels lies `doubt` standard errors of a binomial share below it.

    Args:
        old_answers_B: the base model's classes of remembered old examples.
        old_labels_B: their labels.
        new_answers_B: the base model's classes of new examples.
        new_labels_B: their labels.
        doubt: standard errors.

    Returns:
        bool (N,), True where the class is confirmed; N covers every class that occurs.
    """
    count = int(torch.cat([old_answers_B, old_labels_B, new_answers_B, new_labels_B]).max()) + 1
    old_hits_N, old_total_N = _agreement(old_answers_B, old_labels_B, count)
    new_hits_N, new_total_N = _agreement(new_answers_B, new_labels_B, count)
    # Laplace's rule keeps the expected share off 0 and 1, where a standard error would be 0.
    expected_N = (old_hits_N + 1) / (old_total_N + 2)
    error_N = (expected_N * (1 - expected_N) / new_total_N.clamp(min=1)).sqrt()
    share_N = new_hits_N / new_total_N.clamp(min=1)
    return (new_total_N == 0) | (share_N >= expected_N - doubt * error_N)


def _agreement(answers_B: Tensor, labels_B: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """By answered class: how often the label agrees, and how often the class is answered."""
    hits_N = torch.bincount(answers_B[answers_B == labels_B], minlength=count)
    return hits_N.double(), torch.bincount(answers_B, minlength=count).double()
