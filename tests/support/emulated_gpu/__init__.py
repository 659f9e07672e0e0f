"""A GPU emulated on the host: a `Driver` whose kernels are the project's own .cu files, compiled by g++.

They run in a process of their own under the address and undefined-behaviour sanitizers. A fault ends it, and
the next download raises `EmulationFault` with what the sanitizer said.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import get_ident

import numpy as np
from medloop_kernels.cuda.driver import Array, Grid

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "kernels" / "medloop_kernels" / "cuda"
FLAGS = ["-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-ffp-contract=off"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
ALLOCATE, RELEASE, WRITE, READ, LAUNCH = range(5)
BUFFER, NUMBER = range(2)


class EmulationFault(AssertionError):
    """The emulated GPU ended: a kernel did what it must not do."""


def build(folder: Path, sources: Path = SOURCES) -> Path:
    """Compile the emulated GPU with the .cu files of `sources`; its program, in `folder`."""
    program = folder / "emulated_gpu"
    includes = [f"-I{HERE}", f"-I{sources}"]
    command = ["g++", *FLAGS, *SANITIZERS, *includes, HERE / "device.cpp", "-o", program]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return program


class Buffer:
    """Memory of the emulated GPU, freed with its last reference."""

    def __init__(self, gpu: EmulatedGpu, name: int) -> None:
        self.name = name
        self._gpu = gpu

    def __del__(self) -> None:
        self._gpu.send(RELEASE, self.name)


class EmulatedGpu:
    """A `medloop_kernels.cuda.driver.Driver`.

    Args:
        program: from `build`.
        seed: permutes the order in which threads run.
    """

    architecture = "emulated"

    def __init__(self, program: Path, seed: int = 0) -> None:
        self.seed = seed
        self._errors = TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._names = itertools.count()
        self._captured: list[tuple[int, bytes]] | None = None
        self._threads: set[int] = set()
        self.attach()
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    def close(self) -> None:
        """End the process.

        Raises:
            EmulationFault: it has ended before, by a fault.
        """
        self._process.stdin.close()
        self._process.stdout.close()
        self._check(self._process.wait(timeout=120))
        self._errors.close()

    def attach(self) -> None:
        self._threads.add(get_ident())

    def load(self, source: str) -> str:
        """The emulated GPU holds all kernels; a module is its source's name."""
        assert (SOURCES / f"{source}.cu").is_file()
        return source

    def allocate(self, size: int) -> Buffer:
        buffer = Buffer(self, next(self._names))
        self._transfer(ALLOCATE, buffer.name, size)
        return buffer

    def upload(self, array: Array) -> Buffer:
        buffer = self.allocate(array.nbytes)
        self.overwrite(buffer, array)
        return buffer

    def overwrite(self, buffer: Buffer, array: Array) -> None:
        self._transfer(WRITE, buffer.name, array.nbytes, content=array.tobytes())

    def download(self, buffer: Buffer, into: Array) -> None:
        self._transfer(READ, buffer.name, into.nbytes)
        self._process.stdin.flush()
        content = self._process.stdout.read(into.nbytes)
        if len(content) < into.nbytes:
            self._check(self._process.wait(timeout=120))
        into.reshape(-1).view(np.uint8)[:] = np.frombuffer(content, np.uint8)

    def function(self, module: str, kernel: str) -> str:
        assert f" {kernel}(" in (SOURCES / f"{module}.cu").read_text()
        return kernel

    def launch(self, function: str, grid: Grid, arguments: Sequence[Buffer | int]) -> None:
        numbers = [*grid, self.seed, len(arguments)]
        for each in arguments:
            numbers += [BUFFER, each.name] if isinstance(each, Buffer) else [NUMBER, each]
        content = function.encode() + np.array(numbers, np.int64).tobytes()
        if self._captured is not None:
            self._captured.append((len(function), content))
        else:
            self.send(LAUNCH, len(function), content=content)

    def capture(self, launches: Callable[[], None]) -> Callable[[], None]:
        self._captured = captured = []
        try:
            launches()
        finally:
            self._captured = None

        def replay() -> None:
            for length, content in captured:
                self.send(LAUNCH, length, content=content)

        return replay

    def send(self, *numbers: int, content: bytes = b"") -> None:
        """Write one command; a process that has ended is found out by the next download."""
        with suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(np.array(numbers, np.int64).tobytes() + content)

    def _transfer(self, command: int, *numbers: int, content: bytes = b"") -> None:
        assert self._captured is None, "only launches can be captured"
        assert get_ident() in self._threads, "this thread has not attached the GPU"
        self.send(command, *numbers, content=content)

    def _check(self, code: int) -> None:
        if code:
            self._errors.seek(0)
            raise EmulationFault(self._errors.read().decode()[-3000:])
