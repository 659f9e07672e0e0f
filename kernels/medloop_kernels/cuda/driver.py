"""The CUDA driver through whichever binding is installed: cuda-bindings, else pycuda.

Both are imported only when a GPU is asked for. What is missing (a binding, the driver, a GPU, compiled
kernels) is one error, `BackendUnavailable`, that names it; nothing falls back to the CPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.errors import BackendUnavailable

Array = NDArray[np.generic]
Grid = tuple[int, int]
THREADS = 128
"""Of a block, in every kernel."""


class Driver(Protocol):
    """The first GPU, with memory and kernels; arguments of a kernel are buffers and ints."""

    @property
    def architecture(self) -> str:
        """Such as `sm_87`."""
        ...

    def load(self, image: bytes) -> Any:
        """A module from a cubin or from PTX that ends with a zero byte."""
        ...

    def upload(self, array: Array) -> Any:
        """A new buffer with an array's bytes."""
        ...

    def download(self, buffer: Any, into: Array) -> None:
        """Fill an array from a buffer, when everything launched is done."""
        ...

    def launch(self, module: Any, kernel: str, grid: Grid, arguments: Sequence[Any]) -> None:
        """Start a kernel in blocks of `THREADS`."""
        ...


def open_driver() -> Driver:
    """The first GPU.

    Raises:
        BackendUnavailable: no binding is installed, or there is no driver or no GPU.
    """
    missing = []
    for open_one in (_CudaBindings, _PyCuda):
        try:
            return open_one()
        except ImportError as error:
            missing.append(str(error))
    raise BackendUnavailable(
        "no binding of the CUDA driver is installed: pip install 'medloop-kernels[cuda-bindings]', or "
        f"[cuda] for pycuda, or choose `cpu` ({'; '.join(missing)})."
    )


def _no_gpu(error: object) -> BackendUnavailable:
    return BackendUnavailable(
        f"no GPU can be used ({error}): install NVIDIA's driver, or choose `cpu`, which needs no accelerator."
    )


class _CudaBindings:
    """cuda.bindings.driver."""

    def __init__(self) -> None:
        from cuda.bindings import driver  # noqa: PLC0415

        self._driver = driver
        try:
            self._call(driver.cuInit, 0)
            device = self._call(driver.cuDeviceGet, 0)
            context = self._call(driver.cuDevicePrimaryCtxRetain, device)
        except BackendUnavailable:
            raise
        except Exception as error:  # the library that is missing is reported by a class of another package
            raise _no_gpu(error) from error
        self._call(driver.cuCtxSetCurrent, context)
        self._device = device

    @property
    def architecture(self) -> str:
        attribute = self._driver.CUdevice_attribute
        major, minor = (
            self._call(self._driver.cuDeviceGetAttribute, which, self._device)
            for which in (
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        return f"sm_{major}{minor}"

    def load(self, image: bytes) -> Any:
        return self._call(self._driver.cuModuleLoadData, image)

    def upload(self, array: Array) -> _Buffer:
        address = self._call(self._driver.cuMemAlloc, max(array.nbytes, 1))
        buffer = _Buffer(int(address), lambda: self._call(self._driver.cuMemFree, address))
        if array.nbytes:
            self._call(self._driver.cuMemcpyHtoD, address, array.ctypes.data, array.nbytes)
        return buffer

    def download(self, buffer: _Buffer, into: Array) -> None:
        if into.nbytes:
            self._call(self._driver.cuMemcpyDtoH, into.ctypes.data, buffer.address, into.nbytes)

    def launch(self, module: Any, kernel: str, grid: Grid, arguments: Sequence[Any]) -> None:
        function = self._call(self._driver.cuModuleGetFunction, module, kernel.encode())
        values = tuple(each.address if isinstance(each, _Buffer) else each for each in arguments)
        types = tuple(ctypes.c_void_p if isinstance(each, _Buffer) else ctypes.c_int for each in arguments)
        self._call(self._driver.cuLaunchKernel, function, *grid, 1, THREADS, 1, 1, 0, 0, (values, types), 0)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        code, *results = function(*arguments)
        if code != self._driver.CUresult.CUDA_SUCCESS:
            raise _no_gpu(code)
        return results[0] if results else None


class _Buffer:
    """Memory of a GPU, freed with its last reference."""

    def __init__(self, address: int, free: Callable[[], None]) -> None:
        self.address = address
        self._free = free

    def __del__(self) -> None:
        self._free()


class _PyCuda:
    """pycuda.driver."""

    def __init__(self) -> None:
        import pycuda.driver  # noqa: PLC0415

        self._driver = pycuda.driver
        try:
            self._driver.init()
            self._device = self._driver.Device(0)
            self._context = self._device.retain_primary_context()
            self._context.push()
        except self._driver.Error as error:
            raise _no_gpu(error) from error

    @property
    def architecture(self) -> str:
        major, minor = self._device.compute_capability()
        return f"sm_{major}{minor}"

    def load(self, image: bytes) -> Any:
        return self._driver.module_from_buffer(image)

    def upload(self, array: Array) -> Any:
        return self._driver.to_device(array) if array.nbytes else self._driver.mem_alloc(1)

    def download(self, buffer: Any, into: Array) -> None:
        if into.nbytes:
            self._driver.memcpy_dtoh(into, buffer)

    def launch(self, module: Any, kernel: str, grid: Grid, arguments: Sequence[Any]) -> None:
        values = [np.int32(each) if isinstance(each, int) else each for each in arguments]
        module.get_function(kernel)(*values, block=(THREADS, 1, 1), grid=grid)
