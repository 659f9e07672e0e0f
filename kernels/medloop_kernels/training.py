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

    def ternarize(self, weight: Floats, gain: Floats) -> tuple[Floats, Floats]:
        """`reference.ternarize`."""
        ...

    def ternarize_backward(self, gradient: Floats, ternary: Floats, gain: Floats) -> tuple[Floats, Floats]:
        """`reference.ternarize_backward`."""
        ...


@dataclass(frozen=True)
class Training:
    """One implementation of a training step's arithmetic; `reference.py` says what each operation means.

    A gradient that is handed to `fake_quantize_backward` or `ternarize_backward` is used up: its memory may
    come back as the result's, since it is in the cache and nobody else reads it.

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

    def ternarize(self, weight: Floats, gain: Floats) -> tuple[Floats, Floats]:
        """Latent float32 (N, K) rounded to three values, and that times the outputs' gain (N,).

        Raises:
            ShapeError: operands do not fit.
        """
        require(weight, "weight", np.float32)
        require(gain, "gain", np.float32, (weight.shape[0],))
        return self.operations.ternarize(weight, gain)

    def ternarize_backward(self, gradient: Floats, ternary: Floats, gain: Floats) -> tuple[Floats, Floats]:
        """Gradients of the latent weights (N, K) and of the gain (N,) from the gained weights' (N, K).

        Raises:
            ShapeError: operands do not fit.
        """
        require(ternary, "ternary", np.float32)
        require(gradient, "gradient", np.float32, ternary.shape)
        require(gain, "gain", np.float32, (ternary.shape[0],))
        return self.operations.ternarize_backward(gradient, ternary, gain)
