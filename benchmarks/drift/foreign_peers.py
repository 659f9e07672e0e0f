"""Peers that want other libraries than medloop's: each runs in a process of an environment of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from pathlib import Path

import numpy as np
from goals import IMAGES_PER_FALSE_ALARM
from measured import FloatArray, Measured
from medloop_model.statistics import Reference
from medloop_services.cli.options import tell
from river_peers import DataLayer
from watching import Contender

PYTHON = Path(__file__).with_name(".peers") / "bin" / "python"
"""`make bench-peers` installs it."""

PROGRAM = Path(__file__).with_name("foreign_detectors.py")
LIBRARIES = {"alibi-detect": ("alibi KSDrift", 0.2), "frouros": ("frouros KS", 0.1)}
"""Detector of a library, and of how many of the streams it is shown: they take their time."""


class Absent(Exception):
    """The peer's environment lacks it."""


class Foreign:
    """A peer behind two pipes; its cost includes them.

    Args:
        name: of `foreign_detectors.DETECTORS`.
        reference: what it compares with; standardised, data layer only.
    """

    def __init__(self, name: str, reference: Reference) -> None:
        self._layer = DataLayer(reference)
        rows = self._layer.reference
        command = [str(PYTHON), str(PROGRAM), name, *map(str, rows.shape), str(1 / IMAGES_PER_FALSE_ALARM)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise Absent(error.strerror) from None
        try:
            self._send(rows)
        except BrokenPipeError:
            raise Absent("it does not start") from None
        if self._answer() == b"":
            raise Absent("it does not start")

    def reset(self) -> None:
        self._send(np.zeros(0), count=0)

    def update(self, rows: Measured) -> bool:
        self._send(self._layer.scores(rows), count=len(rows))
        return self._answer() == b"\1"

    def _send(self, rows: FloatArray, count: int | None = None) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise Absent("it has no input")
        if count is not None:
            stdin.write(count.to_bytes(8, "little"))
        stdin.write(np.ascontiguousarray(rows, np.float64).tobytes())
        stdin.flush()

    def _answer(self) -> bytes:
        return b"" if self._process.stdout is None else self._process.stdout.read(1)


def foreign_peers(reference: Reference, libraries: Collection[str]) -> list[Contender]:
    """Return the peers of some libraries that are installed; says which are not."""
    peers = []
    for library, (name, share) in LIBRARIES.items():
        if library not in libraries:
            continue
        try:
            peers.append(Contender(name, Foreign(name, reference), share))
        except Absent as reason:
            tell(f"left out: {library} ({reason}); `make bench-peers` installs it")
    return peers
