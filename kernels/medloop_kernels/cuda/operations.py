"""The single operations: arrays go to the GPU and come back in every call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.backend import Operations
from medloop_kernels.cuda.driver import Driver, Grid
from medloop_kernels.cuda.kernels import WARPS, Finish, Kernels, blocks_of, tiles, warps
from medloop_kernels.errors import NonFiniteInput

FEW_TOKENS = 4
"""Up to so many, each goes by itself: a tile of 64 would be mostly padding."""


def operations(driver: Driver, kernels: Kernels) -> Operations:
    """The operations on a driver's GPU."""
    on_gpu = _OnGpu(driver, kernels)
    return Operations(on_gpu.quantize, on_gpu.ternary_matmul, on_gpu.ternary_linear)


class _OnGpu:
    def __init__(self, driver: Driver, kernels: Kernels) -> None:
        self._driver = driver
        self._kernels = kernels

    def quantize(
        self, x: NDArray[np.float32], norm_weight: NDArray[np.float32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """As `reference.quantize`."""
        tokens, inputs = x.shape
        codes, step, finite = np.zeros(x.shape, np.int8), np.zeros(tokens, np.float32), np.ones(1, np.int32)
        if tokens:
            self._run("quantize", warps(tokens), (x, norm_weight), (codes, step, finite), (tokens, inputs))
        if not finite[0]:
            raise NonFiniteInput("an activation is NaN or infinite: the weights of this layer are damaged.")
        return codes, step

    def ternary_matmul(self, codes: NDArray[np.int8], packed: NDArray[np.uint8]) -> NDArray[np.int32]:
        """As `reference.ternary_matmul`."""
        sums = np.zeros((len(codes), len(packed)), np.int32)
        if sums.size:
            shape = (*codes.shape, len(packed))
            self._run("ternary_matmul", tiles(*sums.shape), (codes, packed), (sums,), shape)
        return sums

    def ternary_linear(
        self,
        codes: NDArray[np.int8],
        step: NDArray[np.float32],
        packed: NDArray[np.uint8],
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        gelu: bool,
    ) -> NDArray[np.float32]:
        """As `reference.ternary_linear`."""
        tokens, inputs = codes.shape
        outputs = len(packed)
        y = np.zeros((tokens, outputs), np.float32)
        if not y.size:
            return y
        kernel, grid = "ternary_linear", tiles(tokens, outputs)
        if tokens <= FEW_TOKENS:
            kernel, grid = "ternary_linear_row", (blocks_of(outputs, WARPS), tokens)
        finish = Finish.GELU if gelu else Finish.STORE
        operands = (codes, step, packed, scale, bias)
        self._run(kernel, grid, operands, (y,), (tokens, inputs, outputs, finish))
        return y

    def _run(
        self,
        kernel: str,
        grid: Grid,
        operands: Sequence[NDArray[Any]],
        results: Sequence[NDArray[Any]],
        sizes: Sequence[int],
    ) -> None:
        with self._kernels.lock:
            self._driver.attach()
            buffers = [self._driver.upload(array) for array in (*operands, *results)]
            self._kernels.launch(kernel, grid, *buffers, *sizes)
            for buffer, result in zip(buffers[len(operands) :], results, strict=True):
                self._driver.download(buffer, result)
