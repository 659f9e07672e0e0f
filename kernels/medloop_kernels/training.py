"""What a back end offers to training: the passes over activations of a step, checked as `backend.py` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.operands import require

Floats = NDArray[np.float32]


class TrainingOperations(Protocol):
    """A back end's own functions, called with operands that have been checked; as the reference's."""

    def fake_quantize(self, x: Floats, norm_weight: Floats) -> tuple[Floats, Floats]:
        """`reference.fake_quantize`."""
        ...

    def fake_quantize_backward(
        self, gradient: Floats, x: Floats, inverse: Floats, norm_weight: Floats
    ) -> tuple[Floats, Floats]:
        """`reference.fake_quantize_backward`."""
        ...

    def exact_gelu(self, x: Floats) -> Floats:
        """`reference.exact_gelu`."""
        ...

    def exact_gelu_backward(self, gradient: Floats, x: Floats) -> Floats:
        """`reference.exact_gelu_backward`."""
        ...


@dataclass(frozen=True)
class Training:
    """One implementation of a training step's arithmetic; `reference.py` says what each operation means.

    Args:
        operations: the implementation.
    """

    operations: TrainingOperations

    def fake_quantize(self, x: Floats, norm_weight: Floats) -> tuple[Floats, Floats]:
        """RMS norm of float32 (M, K) with norm weight (K,), rounded to int8 and back, and 1 / RMS (M,).

        Raises:
            ShapeError: operands do not fit.
        """
        require(x, "x", np.float32)
        require(norm_weight, "norm_weight", np.float32, (x.shape[1],))
        return self.operations.fake_quantize(x, norm_weight)

    def fake_quantize_backward(
        self, gradient: Floats, x: Floats, inverse: Floats, norm_weight: Floats
    ) -> tuple[Floats, Floats]:
        """Gradients of x (M, K) and of the norm weight (K,) from the rounded values' gradient (M, K).

        Raises:
            ShapeError: operands do not fit.
        """
        require(x, "x", np.float32)
        require(gradient, "gradient", np.float32, x.shape)
        require(inverse, "inverse", np.float32, (x.shape[0],))
        require(norm_weight, "norm_weight", np.float32, (x.shape[1],))
        return self.operations.fake_quantize_backward(gradient, x, inverse, norm_weight)

    def exact_gelu(self, x: Floats) -> Floats:
        """The exact GELU of float32 (M, K).

        Raises:
            ShapeError: it is no such matrix.
        """
        require(x, "x", np.float32)
        return self.operations.exact_gelu(x)

    def exact_gelu_backward(self, gradient: Floats, x: Floats) -> Floats:
        """Gradient of x (M, K) from that of its GELU (M, K).

        Raises:
            ShapeError: operands do not fit.
        """
        require(x, "x", np.float32)
        require(gradient, "gradient", np.float32, x.shape)
        return self.operations.exact_gelu_backward(gradient, x)
