"""Which back end runs: one table, one choice a process, and never a silent fallback.

`MEDLOOP_KERNELS` overrides the choice: `reference`, `cpu` (the best instruction set this processor has),
one instruction set by name, such as `cpu:generic`, `cuda` or `tensorrt`. `MEDLOOP_KERNELS_THREADS` says how
many threads share the images of a batch: 1 by default, since a service's replicas share the machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from medloop_kernels import cpu, cuda, reference, tensorrt
from medloop_kernels.backend import Backend, Operations
from medloop_kernels.errors import BackendUnavailable, InvalidThreads
from medloop_kernels.training import Training

VARIABLE = "MEDLOOP_KERNELS"
DEFAULT = "cpu"
THREADS_VARIABLE = "MEDLOOP_KERNELS_THREADS"
MOST_THREADS = 64


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
        name: `reference`, `cpu`, `cpu:<instruction set>`, `cuda`, `tensorrt`; None reads MEDLOOP_KERNELS,
            else `cpu`.

    Raises:
        BackendUnavailable: there is no such back end, or it cannot run on this machine.
    """
    return _load(name or os.environ.get(VARIABLE) or DEFAULT)


def select_training() -> Training:
    """What a training step runs on: what `select` chooses, or the processor where that only serves.

    Raises:
        BackendUnavailable: there is no such back end, or it cannot run on this machine.
    """
    return select().training or cpu.training(cpu.implementation(None))


def threads() -> int:
    """Threads that share a batch: MEDLOOP_KERNELS_THREADS, else 1.

    Raises:
        InvalidThreads: it is not a whole number from 1 to 64.
    """
    text = os.environ.get(THREADS_VARIABLE) or "1"
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_THREADS:
        raise InvalidThreads(f"{THREADS_VARIABLE}={text}: set a whole number from 1 to {MOST_THREADS}.")
    return int(text)


def available() -> list[Backend]:
    """Every back end that runs on this machine, each CPU instruction set by itself."""
    found = [_reference(None), *(_cpu(variant) for variant in cpu.variant_names())]
    for load in (_cuda, _tensorrt):
        with suppress(BackendUnavailable):
            found.append(load(None))
    return found


def describe() -> list[BackendDescription]:
    """One row for each back end, for people: what can run, what was chosen, and why."""
    requested = os.environ.get(VARIABLE)
    chosen = (requested or DEFAULT).partition(":")[0]
    why = f"{VARIABLE}={requested}" if requested else "the default"
    rows = []
    for name, load in TABLE.items():
        try:
            reason = _reason(load(None))
            usable = True
        except BackendUnavailable as unavailable:
            reason, usable = str(unavailable), False
        if name == chosen:
            reason = f"{reason}; chosen: {why}"
        rows.append(BackendDescription(name, usable, name == chosen, reason))
    return rows


def _reason(backend: Backend) -> str:
    """What a back end runs on, and why not on something better."""
    if backend.name != "cpu":
        return f"runs on {backend.variant}"
    faster = cpu.FASTER_FIRST[: cpu.FASTER_FIRST.index(backend.variant)]
    native = [name for name in faster if name in cpu.of_this_architecture()]
    without = f": this processor or build has no {' or '.join(native)}" if native else ""
    others = [name for name in cpu.variant_names() if name != backend.variant]
    choices = f"; cpu:{' and cpu:'.join(others)} can be chosen" if others else ""
    return f"runs on {backend.variant}{without}{choices}"


def _reference(variant: str | None) -> Backend:
    if variant not in (None, "numpy"):
        raise BackendUnavailable("the reference has no instruction sets: choose plain `reference`.")
    operations = Operations(reference.quantize, reference.ternary_matmul, reference.ternary_linear)
    return Backend("reference", "numpy", operations, training=Training(reference))


def _cpu(variant: str | None) -> Backend:
    implementation = cpu.implementation(variant)
    operations = cpu.operations(implementation)
    return Backend(
        "cpu", implementation.name, operations, cpu.compiler(implementation), cpu.training(implementation)
    )


def _cuda(variant: str | None) -> Backend:
    if variant is not None:
        raise BackendUnavailable("the GPU decides its architecture: choose plain `cuda`.")
    return cuda.backend()


def _tensorrt(variant: str | None) -> Backend:
    if variant is not None:
        raise BackendUnavailable("the GPU decides its architecture: choose plain `tensorrt`.")
    return tensorrt.backend()


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
