"""The kernels by name, and the grids that their sources ask for; the sources say what the arguments are."""

from __future__ import annotations

from enum import IntEnum
from threading import Lock
from typing import Any

from medloop_kernels.cuda.driver import THREADS, Driver, Grid

SOURCE_OF = {
    "attention_32": "attention",
    "attention_64": "attention",
    "block_statistics": "block_statistics",
    "classify": "classification",
    "full_linear": "full_linear",
    "patch_embedding": "patch_embedding",
    "pool": "classification",
    "quantize": "quantize",
    "sum_activity": "block_statistics",
    "ternary_linear": "ternary_linear",
    "ternary_linear_row": "ternary_linear",
    "ternary_matmul": "ternary_linear",
}
"""The .cu file of each kernel."""
WARP = 32
WARPS = THREADS // WARP
TILE = 64
"""Tokens and outputs of a thread block, in products."""
WIDEST_HEAD = 64
"""Columns of a head that attention keeps in registers."""


class Finish(IntEnum):
    """What becomes of a linear's output; `medloop::Finish`."""

    STORE = 0
    GELU = 1
    RESIDUAL = 2


class Kernels:
    """The kernels on one GPU, all loaded at once, so that nothing has to be while a graph is captured.

    Args:
        driver: of the GPU.

    Attributes:
        lock: of whoever uses the GPU, since a driver serves one thread at a time.

    Raises:
        BackendUnavailable: a source has not been compiled for it.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.lock = Lock()
        modules = {source: driver.load(source) for source in sorted(set(SOURCE_OF.values()))}
        self._functions = {
            kernel: driver.function(modules[source], kernel) for kernel, source in SOURCE_OF.items()
        }

    def launch(self, kernel: str, grid: Grid, *arguments: Any) -> None:
        """Start a kernel; buffers and ints in the order of its source, every size at least 1."""
        self._driver.launch(self._functions[kernel], grid, arguments)


def tiles(tokens: int, outputs: int) -> Grid:
    """A thread block for each 64 tokens and 64 outputs."""
    return blocks_of(outputs, TILE), blocks_of(tokens, TILE)


def warps(count: int) -> Grid:
    """A warp for each of `count`."""
    return blocks_of(count, WARPS), 1


def blocks_of(count: int, each: int) -> int:
    """How many hold `count`, at `each` a block."""
    return -(-count // each)


def attention_kernel(head_width: int) -> str:
    """The attention for heads of so many columns, up to `WIDEST_HEAD`."""
    return "attention_32" if head_width <= WARP else "attention_64"
