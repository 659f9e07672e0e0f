"""Which back end runs: one table, one choice a process, and never a silent fallback.

`MEDLOOP_KERNELS` overrides the choice: `reference`, `cpu` (the best instruction set this processor has)
or one instruction set by name, such as `cpu:generic`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from medloop_kernels import cpu, reference
from medloop_kernels.backend import Backend, Operations
from medloop_kernels.errors import BackendUnavailable

VARIABLE = "MEDLOOP_KERNELS"
DEFAULT = "cpu"


@dataclass(frozen=True)
class BackendDescription:
    """One row of `medloop kernels`: a back end, whether it runs here, whether it is the choice, and why."""

    name: str
    available: bool
    chosen: bool
    reason: str


def select(name: str | None = None) -> Backend:
    """The back end to run on.

    Args:
        name: `reference`, `cpu`, `cpu:<instruction set>`; None reads MEDLOOP_KERNELS, else takes `cpu`.

    Raises:
        BackendUnavailable: there is no such back end, or it cannot run on this machine.
    """
    return _load(name or os.environ.get(VARIABLE) or DEFAULT)


def available() -> list[Backend]:
    """Every back end that runs on this machine, each CPU instruction set by itself."""
    return [_reference(None), *(_cpu(variant) for variant in cpu.variant_names())]


def describe() -> list[BackendDescription]:
    """One row for each back end, for people: what can run, what was chosen, and why."""
    requested = os.environ.get(VARIABLE)
    chosen = (requested or DEFAULT).partition(":")[0]
    why = f"{VARIABLE}={requested}" if requested else "the default"
    rows = []
    for name, load in TABLE.items():
        try:
            reason = f"runs on {load(None).variant}"
            usable = True
        except BackendUnavailable as unavailable:
            reason, usable = str(unavailable), False
        if name == chosen:
            reason = f"{reason}; chosen: {why}"
        rows.append(BackendDescription(name, usable, name == chosen, reason))
    return rows


def _reference(variant: str | None) -> Backend:
    if variant not in (None, "numpy"):
        raise BackendUnavailable("the reference has no instruction sets: choose plain `reference`.")
    operations = Operations(reference.quantize, reference.ternary_matmul, reference.ternary_linear)
    return Backend("reference", "numpy", operations)


def _cpu(variant: str | None) -> Backend:
    implementation = cpu.implementation(variant)
    return Backend("cpu", implementation.name, cpu.operations(implementation))


def _cuda(variant: str | None) -> NoReturn:
    raise BackendUnavailable("this release has no CUDA kernels: choose `cpu`, which needs no accelerator.")


def _tensorrt(variant: str | None) -> NoReturn:
    raise BackendUnavailable("this release has no TensorRT engine: choose `cpu`, which needs no accelerator.")


TABLE: dict[str, Callable[[str | None], Backend]] = {
    "reference": _reference,
    "cpu": _cpu,
    "cuda": _cuda,
    "tensorrt": _tensorrt,
}


@lru_cache(maxsize=8)
def _load(choice: str) -> Backend:
    name, _, variant = choice.partition(":")
    if name not in TABLE:
        raise BackendUnavailable(f"there is no back end {name!r}: choose one of {', '.join(TABLE)}.")
    return TABLE[name](variant or None)
