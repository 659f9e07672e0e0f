"""The CUDA back end: kernels for tensor cores, compiled ahead for sm_80, sm_87 and sm_90, PTX for later GPUs.

Tests emulate it on the CPU (`tests/support/emulated_gpu`) and use a GPU where there is one. Run on sm_90.
"""

from __future__ import annotations

from medloop_kernels.backend import Backend
from medloop_kernels.cuda.driver import Driver, open_driver
from medloop_kernels.cuda.kernels import Kernels
from medloop_kernels.cuda.network import Network
from medloop_kernels.cuda.operations import operations


def backend() -> Backend:
    """The back end on the first GPU.

    Raises:
        BackendUnavailable: a binding, the driver, a GPU or the compiled kernels are missing.
    """
    return backend_on(open_driver())


def backend_on(driver: Driver) -> Backend:
    """The back end on a driver's GPU. Threads are the processor's; the GPU has its own and is told of none.

    Raises:
        BackendUnavailable: the kernels have not been compiled for this GPU.
    """
    kernels = Kernels(driver)
    return Backend(
        "cuda",
        driver.architecture,
        operations(driver, kernels),
        lambda weights, threads: Network(weights, driver, kernels),
    )
