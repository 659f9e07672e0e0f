"""Memory and kernels of the first GPU in the order of a stream, as TensorRT asks of a plugin.

The CUDA back end's own driver has a stream of its own and waits for copies; here nothing waits but
`synchronize`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.cuda.driver import THREADS, Grid, open_driver
from medloop_kernels.errors import BackendUnavailable

Array = NDArray[np.generic]


class Address(int):
    """Of memory on the GPU; tells a kernel's buffers from its sizes."""


class Gpu:
    """The first GPU.

    Raises:
        BackendUnavailable: there is none, or the binding is missing.
    """

    def __init__(self) -> None:
        self._context = open_driver()  # makes the primary context, which TensorRT uses too, current
        try:
            from cuda.bindings import driver  # noqa: PLC0415
        except ImportError as missing:
            raise BackendUnavailable(
                f"the TensorRT back end launches kernels by cuda-bindings ({missing}): "
                "pip install 'medloop-kernels[cuda-bindings]'."
            ) from missing
        self._driver = driver
        self._modules: dict[str, Any] = {}

    def enter(self) -> None:
        """Let what this thread calls go to this GPU; a service decides in one thread and loads in another."""
        self._context.attach()

    def function(self, source: str, name: str) -> Any:
        """A kernel of a compiled source.

        Raises:
            BackendUnavailable: the source isn't compiled for this GPU.
        """
        if source not in self._modules:
            self._modules[source] = self._context.load(source)
        return self._context.function(self._modules[source], name)

    def allocate(self, size: int) -> Address:
        """Memory of so many bytes, to be given to `free`."""
        return Address(int(self._call(self._driver.cuMemAlloc, max(size, 1))))

    def free(self, address: Address) -> None:
        """Give memory back."""
        self._call(self._driver.cuMemFree, address)

    def stream(self) -> int:
        """A new stream, for as long as the process."""
        return int(self._call(self._driver.cuStreamCreate, 0))

    def upload(self, array: Array, to: Address, stream: int) -> None:
        """Copy an array, which must not change before the stream was waited for."""
        self._call(self._driver.cuMemcpyHtoDAsync, to, array.ctypes.data, array.nbytes, stream)

    def download(self, source: Address, into: Array, stream: int) -> None:
        """Fill an array; it is filled when the stream was waited for."""
        self._call(self._driver.cuMemcpyDtoHAsync, into.ctypes.data, source, into.nbytes, stream)

    def set_word(self, address: Address, word: int, stream: int) -> None:
        """Write one 32-bit word."""
        self._call(self._driver.cuMemsetD32Async, address, word, 1, stream)

    def launch(self, function: Any, grid: Grid, arguments: Sequence[int], stream: int) -> None:
        """Start a kernel in blocks of `THREADS`; arguments are addresses and 32-bit ints."""
        types = tuple(ctypes.c_void_p if isinstance(each, Address) else ctypes.c_int for each in arguments)
        values = tuple(int(each) for each in arguments)
        self._call(
            self._driver.cuLaunchKernel, function, *grid, 1, THREADS, 1, 1, 0, stream, (values, types), 0
        )

    def synchronize(self, stream: int) -> None:
        """Wait for all of a stream."""
        self._call(self._driver.cuStreamSynchronize, stream)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        code, *results = function(*arguments)
        if code != self._driver.CUresult.CUDA_SUCCESS:
            raise BackendUnavailable(f"the GPU failed ({code} of {function.__name__}): restart the service.")
        return results[0] if results else None


_open = cache(Gpu)


def first_gpu() -> Gpu:
    """The GPU of this process, for the calling thread.

    Raises:
        BackendUnavailable: there is none, or the binding is missing.
    """
    gpu = _open()
    gpu.enter()
    return gpu
