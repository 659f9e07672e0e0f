"""Whether an operand is what an operation takes, and if not, what to do."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from medloop_kernels.errors import ShapeError


def require(
    operand: NDArray[np.generic], name: str, dtype: DTypeLike, shape: tuple[int, ...] | None = None
) -> None:
    """Raise ShapeError unless `operand` has this dtype and shape (None: any matrix) and no gaps."""
    fits = operand.ndim == 2 if shape is None else operand.shape == shape
    if not fits or operand.dtype != dtype:
        wanted = "matrix" if shape is None else shape
        raise ShapeError(f"{name} must be {np.dtype(dtype)} {wanted}, not {operand.dtype} {operand.shape}.")
    if not operand.flags.c_contiguous:
        raise ShapeError(f"{name} must be C-contiguous: pass numpy.ascontiguousarray({name}).")
