"""The C++ back end: one extension module, several instruction sets, the best one chosen at run time."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.backend import Operations
from medloop_kernels.errors import BackendUnavailable, NonFiniteInput
from medloop_kernels.network import CompiledNetwork, NetworkWeights
from medloop_kernels.training import Floats, Training

try:
    from medloop_kernels.cpu import _ternary
except ImportError as missing:
    _ternary = None  # type: ignore[assignment]
    _MISSING: ImportError | None = missing
else:
    _MISSING = None

FASTER_FIRST = ("amx", "avx512vnni", "avxvnni", "avx2", "dotprod", "neon", "generic")


def of_this_architecture() -> tuple[str, ...]:
    """Instruction sets that some processor of this machine's architecture has."""
    if platform.machine().lower() in {"arm64", "aarch64"}:
        return ("dotprod", "neon", "generic")
    return ("amx", "avx512vnni", "avxvnni", "avx2", "generic")


def variant_names() -> list[str]:
    """Instruction sets in this build that this processor runs, best first; none without the extension."""
    return [variant.name for variant in _ternary.variants()] if _MISSING is None else []


def implementation(name: str | None) -> _ternary.Variant:
    """The kernels for one instruction set, or the best ones where `name` is None.

    Raises:
        BackendUnavailable: the extension is not built, or it has no such instruction set here.
    """
    if _MISSING is not None:
        raise BackendUnavailable(
            f"the C++ kernels are not built ({_MISSING}): install medloop-kernels, "
            "or set MEDLOOP_KERNELS=reference to run on numpy."
        )
    for variant in _ternary.variants():
        if name in (None, variant.name):
            return variant
    raise BackendUnavailable(
        f"the C++ kernels cannot run {name!r} here: choose one of {', '.join(variant_names())}."
    )


def compiler(variant: _ternary.Variant) -> Callable[[NetworkWeights, int], CompiledNetwork]:
    """What turns weights into a network that runs on one instruction set."""
    from medloop_kernels.cpu.network import Network  # noqa: PLC0415  (needs the extension, this module doesn't)

    return lambda weights, threads: Network(weights, variant, threads)


def operations(variant: _ternary.Variant) -> Operations:
    """The three operations of one instruction set, with a NaN reported as this package's own error."""

    def quantize(
        x: NDArray[np.float32], norm_weight: NDArray[np.float32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        codes = np.empty(x.shape, dtype=np.int8)
        step = np.empty(x.shape[0], dtype=np.float32)
        if not variant.quantize(x, norm_weight, codes, step):
            raise NonFiniteInput("an activation is NaN or infinite: the weights of this layer are damaged.")
        return codes, step

    def ternary_matmul(codes: NDArray[np.int8], packed: NDArray[np.uint8]) -> NDArray[np.int32]:
        sums = np.empty((codes.shape[0], packed.shape[0]), dtype=np.int32)
        variant.ternary_matmul(codes, packed, sums)
        return sums

    def ternary_linear(
        codes: NDArray[np.int8],
        step: NDArray[np.float32],
        packed: NDArray[np.uint8],
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        gelu: bool,
    ) -> NDArray[np.float32]:
        y = np.empty((codes.shape[0], packed.shape[0]), dtype=np.float32)
        variant.ternary_linear(codes, step, packed, scale, bias, gelu, y)
        return y

    return Operations(quantize, ternary_matmul, ternary_linear)


def training(variant: _ternary.Variant) -> Training:
    """What one instruction set offers to training."""
    return Training(_TrainingOn(variant))


@dataclass(frozen=True)
class _TrainingOn:
    variant: _ternary.Variant

    def fake_quantize(self, x: Floats, norm_weight: Floats) -> tuple[Floats, Floats]:
        rounded, inverse = np.empty_like(x), np.empty(len(x), np.float32)
        self.variant.fake_quantize(x, norm_weight, rounded, inverse)
        return rounded, inverse

    def fake_quantize_backward(
        self, gradient: Floats, x: Floats, inverse: Floats, norm_weight: Floats
    ) -> tuple[Floats, Floats]:
        norm_gradient = np.empty_like(norm_weight)
        self.variant.fake_quantize_backward(gradient, x, inverse, norm_weight, gradient, norm_gradient)
        return gradient, norm_gradient

    def ternarize(self, weight: Floats, gain: Floats) -> tuple[Floats, Floats]:
        ternary, gained = np.empty_like(weight), np.empty_like(weight)
        self.variant.ternarize(weight, gain, ternary, gained)
        return ternary, gained

    def ternarize_backward(self, gradient: Floats, ternary: Floats, gain: Floats) -> tuple[Floats, Floats]:
        gain_gradient = np.empty_like(gain)
        self.variant.ternarize_backward(gradient, ternary, gain, gradient, gain_gradient)
        return gradient, gain_gradient
