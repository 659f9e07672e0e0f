"""Many tensors as one: an optimiser's pass over a network is then one operation and not one a parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def flattened(tensors: Iterable[Tensor]) -> Tensor:
    """All numbers of some tensors, one after the other, in memory of their own; one axis."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The parts of a flat tensor in the shapes of those that it was made of; the memory is the same."""
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
