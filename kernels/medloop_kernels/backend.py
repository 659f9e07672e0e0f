"""What a back end offers: three operations with one set of checks in front of them, and whole networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.layout import require_width
from medloop_kernels.network import CompiledNetwork, NetworkWeights
from medloop_kernels.operands import require
from medloop_kernels.training import Training


class Quantize(Protocol):
    """`reference.quantize`."""

    def __call__(
        self, x: NDArray[np.float32], norm_weight: NDArray[np.float32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """As the reference does."""
        ...


class TernaryMatmul(Protocol):
    """`reference.ternary_matmul`."""

    def __call__(self, codes: NDArray[np.int8], packed: NDArray[np.uint8]) -> NDArray[np.int32]:
        """As the reference does."""
        ...


class TernaryLinear(Protocol):
    """`reference.ternary_linear`."""

    def __call__(
        self,
        codes: NDArray[np.int8],
        step: NDArray[np.float32],
        packed: NDArray[np.uint8],
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        gelu: bool,
    ) -> NDArray[np.float32]:
        """As the reference does."""
        ...


@dataclass(frozen=True)
class Operations:
    """A back end's own functions, called with operands that have been checked."""

    quantize: Quantize
    ternary_matmul: TernaryMatmul
    ternary_linear: TernaryLinear


@dataclass(frozen=True)
class Backend:
    """One implementation of the arithmetic; `reference.py` says what each operation means.

    Args:
        name: `reference`, `cpu`, `cuda` or `tensorrt`.
        variant: the instruction set it runs on, such as `avx2`, or the GPU's architecture.
        operations: the implementation.
        compile: prepares a whole network for the machine, to run on so many threads; None where a back end
            has operations only.
        training: what it offers to training; None where it only serves.
    """

    name: str
    variant: str
    operations: Operations
    compile: Callable[[NetworkWeights, int], CompiledNetwork] | None = None
    training: Training | None = None

    def quantize(
        self, x: NDArray[np.float32], norm_weight: NDArray[np.float32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """RMS norm and int8 codes of float32 (M, K) with norm weight (K,): int8 (M, K), float32 step (M,).

        Raises:
            ShapeError: operands do not fit.
            NonFiniteInput: a value is NaN or infinite.
        """
        require(x, "x", np.float32)
        require(norm_weight, "norm_weight", np.float32, (x.shape[1],))
        return self.operations.quantize(x, norm_weight)

    def ternary_matmul(self, codes: NDArray[np.int8], packed: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Exact int32 (M, N) of int8 codes (M, K) and packed weights (N, packed_width(K)).

        Raises:
            ShapeError: operands do not fit.
            LayoutError: the packed width belongs to another K.
        """
        _require_linear(codes, packed)
        return self.operations.ternary_matmul(codes, packed)

    def ternary_linear(
        self,
        codes: NDArray[np.int8],
        step: NDArray[np.float32],
        packed: NDArray[np.uint8],
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        gelu: bool = False,
    ) -> NDArray[np.float32]:
        """float32 (M, N) = sums · step[m] · scale[n] + bias[n], through the exact GELU if asked.

        Raises:
            ShapeError: operands do not fit.
            LayoutError: the packed width belongs to another K.
        """
        _require_linear(codes, packed)
        require(step, "step", np.float32, (codes.shape[0],))
        require(scale, "scale", np.float32, (packed.shape[0],))
        require(bias, "bias", np.float32, (packed.shape[0],))
        return self.operations.ternary_linear(codes, step, packed, scale, bias, gelu=gelu)


def _require_linear(codes: NDArray[np.int8], packed: NDArray[np.uint8]) -> None:
    require(codes, "codes", np.int8)
    require_width(packed, codes.shape[1])
    require(packed, "packed", np.uint8)
