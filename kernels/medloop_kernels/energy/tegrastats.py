"""tegrastats: what a Jetson says of its own power, a line ten times a second.

`VDD_IN 4654mW/4541mW` is what the whole module of an Orin Nano or NX draws: now, and on average since
tegrastats was started (Jetson Linux Developer Guide, tegrastats utility). Energy is the first's integral.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass

from medloop_kernels.errors import EnergyUnavailable

COMMAND = "tegrastats"
RAIL = "VDD_IN"
INTERVAL_MS = 100
FIRST_LINE_S = 5.0
"""Patience with the first line."""

_READING = re.compile(rf"\b{RAIL} (\d+)mW/\d+mW")


def watts(line: str) -> float:
    """Power of the module now, W, from one line of tegrastats.

    Raises:
        EnergyUnavailable: the line doesn't name the rail; an AGX Orin's has no such rail.

    >>> watts("GR3D_FREQ 0% VDD_IN 4654mW/4541mW VDD_SOC 1484mW/1484mW")
    4.654
    """
    reading = _READING.search(line)
    if reading is None:
        raise EnergyUnavailable(f"tegrastats names no {RAIL}, which an Orin Nano or NX has: {line.strip()!r}")
    return int(reading[1]) / 1000


@dataclass
class Integral:
    """Energy from readings of power, by the trapezoidal rule.

    Attributes:
        joules: since the first reading.
    """

    joules: float = 0.0
    _last: tuple[float, float] | None = None

    def add(self, power: float, time_s: float) -> None:
        """A reading: W, at a moment in s of any clock that only goes forward."""
        if self._last is not None:
            power_before, time_before = self._last
            self.joules += (power + power_before) / 2 * (time_s - time_before)
        self._last = power, time_s


class Tegrastats:
    """Energy of a Jetson's module, from a tegrastats that runs beside this process.

    It ends with this process: its next line has no reader.

    Raises:
        EnergyUnavailable: there is no tegrastats, or it doesn't say what the module draws.
    """

    source = f"tegrastats {RAIL}"

    def __init__(self) -> None:
        command = shutil.which(COMMAND)
        if command is None:
            raise EnergyUnavailable(f"no {COMMAND} is on the PATH: it comes with a Jetson's own Linux")
        self._integral = Integral()
        self._failure: str | None = None
        self._first_line = threading.Event()
        self._process = subprocess.Popen(
            [command, "--interval", str(INTERVAL_MS)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._read, name=COMMAND, daemon=True).start()
        if not self._first_line.wait(FIRST_LINE_S):
            self._process.kill()
            raise EnergyUnavailable(f"{command} said nothing for {FIRST_LINE_S:g} s")
        self.joules()

    def joules(self) -> float:
        """Energy since the first line, J, up to the last line.

        Raises:
            EnergyUnavailable: tegrastats has ended, or no longer says what the module draws.
        """
        if self._failure is not None:
            raise EnergyUnavailable(self._failure)
        return self._integral.joules

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._integral.add(watts(line), time.monotonic())
                self._first_line.set()
            self._failure = f"{COMMAND} has ended with {self._process.wait()}: run it by hand to see why"
        except EnergyUnavailable as unavailable:
            self._failure = str(unavailable)
            self._process.kill()
        self._first_line.set()
