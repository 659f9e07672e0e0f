"""Activations between torch and the kernels, which take rows of numpy: copied only where there are gaps.

Shape suffixes: B batch · T tokens · R rows, all tokens of a batch · I channels
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_rows(x_BTI: Tensor) -> NDArray[np.float32]:
    """A tensor's tokens as the rows of a matrix (R, I), out of autograd's sight."""
    rows_RI: NDArray[np.float32] = x_BTI.detach().reshape(-1, x_BTI.shape[-1]).contiguous().numpy()
    return rows_RI


def like(x_BTI: Tensor, rows_RI: NDArray[np.float32]) -> Tensor:
    """Rows in the shape of the activations that they were computed from."""
    return torch.from_numpy(rows_RI).view(x_BTI.shape)
