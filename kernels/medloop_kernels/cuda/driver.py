"""The CUDA driver through whichever binding is installed: cuda-bindings, else pycuda.

Both are imported only when a GPU is asked for. What is missing (a binding, the driver, a GPU, compiled
kernels) is one error, `BackendUnavailable`, that names it; nothing falls back to the CPU.
"""

from __future__ import annotations

import atexit
import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.cuda.images import load_image
from medloop_kernels.errors import BackendUnavailable

Array = NDArray[np.generic]
Grid = tuple[int, int]
THREADS = 128
"""Of a block, in every kernel."""


class Driver(Protocol):
    """The first GPU, with memory and kernels; arguments of a kernel are buffers and ints.

    Launches and replays run one after another, in the order of the calls; copies wait for those before them.
    One thread at a time: what another launched during a capture would be captured too.
    """

    @property
    def architecture(self) -> str:
        """Such as `sm_87`."""
        ...

    def attach(self) -> None:
        """Make the GPU the calling thread's; nothing else may be called in a thread before."""
        ...

    def load(self, source: str) -> Any:
        """The module that has been compiled from a source.

        Raises:
            BackendUnavailable: it has not been compiled for this GPU.
        """
        ...

    def function(self, module: Any, kernel: str) -> Any:
        """A kernel of a module, ready to be launched."""
        ...

    def allocate(self, size: int) -> Any:
        """A new buffer of so many bytes, with anything in it."""
        ...

    def upload(self, array: Array) -> Any:
        """A new buffer with an array's bytes."""
        ...

    def overwrite(self, buffer: Any, array: Array) -> None:
        """Copy an array to the start of a buffer."""
        ...

    def download(self, buffer: Any, into: Array) -> None:
        """Fill an array from the start of a buffer, when everything launched is done."""
        ...

    def launch(self, function: Any, grid: Grid, arguments: Sequence[Any]) -> None:
        """Start a kernel in blocks of `THREADS`."""
        ...

    def capture(self, launches: Callable[[], None]) -> Callable[[], None]:
        """Record what `launches` launches, without running it, as one CUDA graph; returns what replays it.

        `launches` may launch and nothing else.
        """
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
        f"no GPU can be used ({error}): install NVIDIA's driver, of CUDA 13 or newer, or choose `cpu`, which "
        "needs no accelerator."
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
        self._context, self._device = context, device
        self.attach()
        # Of the kind that copies, which run in the default stream, wait for.
        self._stream = self._call(driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_DEFAULT)

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

    def attach(self) -> None:
        self._call(self._driver.cuCtxSetCurrent, self._context)

    def load(self, source: str) -> Any:
        return self._call(self._driver.cuModuleLoadData, load_image(source, self.architecture))

    def function(self, module: Any, kernel: str) -> Any:
        return self._call(self._driver.cuModuleGetFunction, module, kernel.encode())

    def allocate(self, size: int) -> _Buffer:
        address = self._call(self._driver.cuMemAlloc, max(size, 1))
        return _Buffer(int(address), lambda: self._drop(self._driver.cuMemFree, address))

    def upload(self, array: Array) -> _Buffer:
        buffer = self.allocate(array.nbytes)
        self.overwrite(buffer, array)
        return buffer

    def overwrite(self, buffer: _Buffer, array: Array) -> None:
        if array.nbytes:
            self._call(self._driver.cuMemcpyHtoD, buffer.address, array.ctypes.data, array.nbytes)

    def download(self, buffer: _Buffer, into: Array) -> None:
        if into.nbytes:
            self._call(self._driver.cuMemcpyDtoH, into.ctypes.data, buffer.address, into.nbytes)

    def launch(self, function: Any, grid: Grid, arguments: Sequence[Any]) -> None:
        values = tuple(each.address if isinstance(each, _Buffer) else each for each in arguments)
        types = tuple(ctypes.c_void_p if isinstance(each, _Buffer) else ctypes.c_int for each in arguments)
        shape = (*grid, 1, THREADS, 1, 1)
        self._call(self._driver.cuLaunchKernel, function, *shape, 0, self._stream, (values, types), 0)

    def capture(self, launches: Callable[[], None]) -> _Graph:
        driver = self._driver
        # Relaxed, or a buffer that happens to be freed meanwhile would end the capture.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self._call(driver.cuStreamBeginCapture, self._stream, mode)
        try:
            launches()
        finally:
            graph = self._call(driver.cuStreamEndCapture, self._stream)
        executable = self._call(driver.cuGraphInstantiate, graph, 0)
        self._call(driver.cuGraphDestroy, graph)
        return _Graph(
            lambda: self._call(driver.cuGraphLaunch, executable, self._stream),
            lambda: self._drop(driver.cuGraphExecDestroy, executable),
        )

    def _drop(self, function: Callable[..., Any], what: Any) -> None:
        self.attach()  # a last reference may go in any thread
        self._call(function, what)

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


class _Graph:
    """What has been captured; a call replays it, the last reference destroys it."""

    def __init__(self, launch: Callable[[], None], destroy: Callable[[], None]) -> None:
        self._launch = launch
        self._destroy = destroy

    def __call__(self) -> None:
        self._launch()

    def __del__(self) -> None:
        self._destroy()


class _PyCuda:
    """pycuda.driver."""

    def __init__(self) -> None:
        import pycuda.driver  # noqa: PLC0415

        self._driver = pycuda.driver
        try:
            self._driver.init()
            self._device = self._driver.Device(0)
            self._context = self._device.retain_primary_context()
            self._attached = threading.local()
            self.attach()
            atexit.register(self._detach)
            self._stream = self._driver.Stream()
        except self._driver.Error as error:
            raise _no_gpu(error) from error
        self._graphs = _Graphs(self._stream.handle)

    @property
    def architecture(self) -> str:
        major, minor = self._device.compute_capability()
        return f"sm_{major}{minor}"

    def attach(self) -> None:
        if not hasattr(self._attached, "pushed"):
            self._attached.pushed = _Pushed(self._context)

    def _detach(self) -> None:
        self._attached.__dict__.clear()

    def load(self, source: str) -> Any:
        return self._driver.module_from_buffer(load_image(source, self.architecture))

    def function(self, module: Any, kernel: str) -> Any:
        return module.get_function(kernel)

    def allocate(self, size: int) -> Any:
        return self._driver.mem_alloc(max(size, 1))

    def upload(self, array: Array) -> Any:
        buffer = self.allocate(array.nbytes)
        self.overwrite(buffer, array)
        return buffer

    def overwrite(self, buffer: Any, array: Array) -> None:
        if array.nbytes:
            self._driver.memcpy_htod(buffer, array)

    def download(self, buffer: Any, into: Array) -> None:
        if into.nbytes:
            self._driver.memcpy_dtoh(into, buffer)

    def launch(self, function: Any, grid: Grid, arguments: Sequence[Any]) -> None:
        values = [np.int32(each) if isinstance(each, int) else each for each in arguments]
        function(*values, block=(THREADS, 1, 1), grid=grid, stream=self._stream)

    def capture(self, launches: Callable[[], None]) -> _Graph:
        graph = self._graphs.capture(launches)
        return _Graph(lambda: self._graphs.launch(graph), lambda: self._destroy(graph))

    def _destroy(self, graph: ctypes.c_void_p) -> None:
        self.attach()  # a last reference may go in any thread
        self._graphs.destroy(graph)


class _Pushed:
    """A context on the stack that pycuda has for each thread.

    Popped when the thread's locals go: pycuda ends the process if a thread ends with something on its stack.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        context.push()

    def __del__(self) -> None:
        self._context.pop()


class _Graphs:
    """CUDA graphs of a stream through the driver's own library: pycuda has none.

    Args:
        stream: its handle.
    """

    _RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED, as above

    def __init__(self, stream: int) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._stream = ctypes.c_void_p(stream)

    def capture(self, launches: Callable[[], None]) -> ctypes.c_void_p:
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, self._RELAXED)
        try:
            launches()
        finally:
            self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        # Its last argument is flags, of 64 bits.
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        self._call("cuGraphDestroy", graph)
        return executable

    def launch(self, executable: ctypes.c_void_p) -> None:
        self._call("cuGraphLaunch", executable, self._stream)

    def destroy(self, executable: ctypes.c_void_p) -> None:
        self._call("cuGraphExecDestroy", executable)

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            raise _no_gpu(f"{function} failed with {code}")
