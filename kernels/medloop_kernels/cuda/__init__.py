"""The CUDA back end: kernels for tensor cores, compiled ahead for sm_80, sm_87 and sm_90, PTX for later GPUs.

Compiled and emulated on the CPU (`tests/unit/kernels/cuda`), never run on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.backend import Backend, Operations
from medloop_kernels.cuda.driver import THREADS, Driver, open_driver
from medloop_kernels.cuda.images import load_image
from medloop_kernels.errors import NonFiniteInput

TILE = 64
"""Tokens and outputs of a thread block."""
WARPS = THREADS // 32
FEW_TOKENS = 4
"""Up to so many, each goes by itself: a tile of 64 would be mostly padding."""


def backend() -> Backend:
    """The back end on the first GPU.

    Raises:
        BackendUnavailable: a binding, the driver, a GPU or the compiled kernels are missing.
    """
    driver = open_driver()
    kernels = _Kernels(driver)
    operations = Operations(kernels.quantize, kernels.ternary_matmul, kernels.ternary_linear)
    return Backend("cuda", driver.architecture, operations)


class _Kernels:
    """The operations; arrays go to the GPU and come back in every call."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._quantizing = driver.load(load_image("quantize", driver.architecture))
        self._linear = driver.load(load_image("ternary_linear", driver.architecture))

    def quantize(
        self, x: NDArray[np.float32], norm_weight: NDArray[np.float32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """As `reference.quantize`."""
        tokens, inputs = x.shape
        codes, step, finite = np.zeros(x.shape, np.int8), np.zeros(tokens, np.float32), np.ones(1, np.int32)
        if not tokens:
            return codes, step
        buffers = [self._driver.upload(array) for array in (x, norm_weight, codes, step, finite)]
        grid = (-(-tokens // WARPS), 1)
        self._driver.launch(self._quantizing, "quantize", grid, [*buffers, tokens, inputs])
        self._driver.download(buffers[2], codes)
        self._driver.download(buffers[3], step)
        self._driver.download(buffers[4], finite)
        if not finite[0]:
            raise NonFiniteInput("an activation is NaN or infinite: the weights of this layer are damaged.")
        return codes, step

    def ternary_matmul(self, codes: NDArray[np.int8], packed: NDArray[np.uint8]) -> NDArray[np.int32]:
        """As `reference.ternary_matmul`."""
        sums = np.zeros((len(codes), len(packed)), np.int32)
        if sums.size:
            shape = (*codes.shape, len(packed))
            self._run("ternary_matmul", _tiles(sums.shape), (codes, packed), sums, shape)
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
        y = np.zeros((tokens, len(packed)), np.float32)
        if not y.size:
            return y
        few = tokens <= FEW_TOKENS
        kernel, grid = (
            ("ternary_linear_row", (-(-y.shape[1] // WARPS), tokens))
            if few
            else ("ternary_linear", _tiles(y.shape))
        )
        operands = (codes, step, packed, scale, bias)
        self._run(kernel, grid, operands, y, (tokens, inputs, y.shape[1], int(gelu)))
        return y

    def _run(
        self,
        kernel: str,
        grid: tuple[int, int],
        operands: Sequence[NDArray[Any]],
        result: NDArray[Any],
        sizes: Sequence[int],
    ) -> None:
        buffers = [self._driver.upload(array) for array in (*operands, result)]
        self._driver.launch(self._linear, kernel, grid, [*buffers, *sizes])
        self._driver.download(buffers[-1], result)


def _tiles(shape: tuple[int, ...]) -> tuple[int, int]:
    tokens, outputs = shape
    return -(-outputs // TILE), -(-tokens // TILE)
