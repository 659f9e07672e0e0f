"""The TensorRT back end: a whole network as one engine, its ternary linears a plugin on the CUDA kernels.

    fields, operations, description   the network as data; needs no library
    ternary_linear, gpu               the CUDA kernels in the order of a stream
    plugin, builder, engine           all of that as TensorRT's plugin and engine, and how it runs

TensorRT is imported only when this back end is chosen. The description is tested against the other back ends;
plugin, builder and engine have never run: no machine with TensorRT was at hand.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from medloop_kernels import cuda
from medloop_kernels.backend import Backend
from medloop_kernels.errors import BackendUnavailable

OLDEST = 10
"""The first major version with IPluginV3."""
REMEDY = (
    "on a Jetson Orin install JetPack 7.2 or newer, which brings TensorRT 10.16 for Python 3.12; elsewhere "
    "pip install 'medloop-kernels[tensorrt]'; or choose `cuda`, or `cpu`, which needs no accelerator"
)


def backend() -> Backend:
    """The back end on the first GPU; single operations are the CUDA back end's.

    Raises:
        BackendUnavailable: TensorRT is missing or too old, or the CUDA back end can't run.
    """
    version = _version()
    on_gpu = cuda.backend()
    from medloop_kernels.tensorrt.engine import compile_network  # noqa: PLC0415  (imports TensorRT)

    variant = f"TensorRT {version} on {on_gpu.variant}"
    return replace(on_gpu, name="tensorrt", variant=variant, compile=compile_network)


def _version() -> str:
    try:
        version = str(import_module("tensorrt").__version__)
    except (ImportError, OSError) as missing:
        raise BackendUnavailable(f"TensorRT is not installed ({missing}): {REMEDY}.") from missing
    if int(version.partition(".")[0]) < OLDEST:
        raise BackendUnavailable(f"TensorRT {version} is too old, {OLDEST} is needed: {REMEDY}.")
    return version
