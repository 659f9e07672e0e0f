"""Ternary arithmetic: the packed two-bit format and the kernels that run on it.

>>> import numpy as np
>>> from medloop_kernels import pack, select
>>> kernels = select("reference")
>>> x = np.ones((1, 3), dtype=np.float32)
>>> codes, step = kernels.quantize(x, np.ones(3, dtype=np.float32))
>>> kernels.ternary_matmul(codes, pack(np.array([[1, 1, -1]], dtype=np.int8))).tolist()
[[127]]
"""

from medloop_kernels.backend import Backend
from medloop_kernels.dispatch import (
    BackendDescription,
    available,
    describe,
    select,
    select_training,
    threads,
)
from medloop_kernels.energy import EnergyMeter, open_meter
from medloop_kernels.errors import (
    BackendUnavailable,
    EnergyUnavailable,
    InvalidThreads,
    KernelError,
    LayoutError,
    NonFiniteInput,
    ShapeError,
)
from medloop_kernels.layout import pack, packed_width, unpack
from medloop_kernels.network import (
    BlockWeights,
    CompiledNetwork,
    LinearWeights,
    NetworkMeasures,
    NetworkOutput,
    NetworkWeights,
    Traffic,
)
from medloop_kernels.reference import absmax_int8, absmean_ternary, rms_norm
from medloop_kernels.training import Training

__all__ = [
    "Backend",
    "BackendDescription",
    "BackendUnavailable",
    "BlockWeights",
    "CompiledNetwork",
    "EnergyMeter",
    "EnergyUnavailable",
    "InvalidThreads",
    "KernelError",
    "LayoutError",
    "LinearWeights",
    "NetworkMeasures",
    "NetworkOutput",
    "NetworkWeights",
    "NonFiniteInput",
    "ShapeError",
    "Traffic",
    "Training",
    "absmax_int8",
    "absmean_ternary",
    "available",
    "describe",
    "open_meter",
    "pack",
    "packed_width",
    "rms_norm",
    "select",
    "select_training",
    "threads",
    "unpack",
]
