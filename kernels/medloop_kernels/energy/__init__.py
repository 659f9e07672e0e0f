"""Energy that this machine uses, in joules, where it can be read: by RAPL, or by tegrastats on a Jetson.

Both count the whole processor or module: whatever else runs on it, and what it draws when idle, is in the
figure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

from medloop_kernels.energy.rapl import Rapl
from medloop_kernels.energy.tegrastats import Tegrastats
from medloop_kernels.errors import EnergyUnavailable


class EnergyMeter(Protocol):
    """A running count of energy."""

    @property
    def source(self) -> str:
        """What is read, such as `RAPL package-0`."""
        ...

    def joules(self) -> float:
        """Energy used since the meter was opened, J.

        Raises:
            EnergyUnavailable: it can't be read any more.
        """
        ...


METERS: tuple[Callable[[], EnergyMeter], ...] = (Rapl, Tegrastats)


@cache
def open_meter() -> EnergyMeter:
    """The meter of this process, opened once.

    Raises:
        EnergyUnavailable: this machine has none that can be read; says what is missing of each.
    """
    reasons = []
    for meter in METERS:
        try:
            return meter()
        except EnergyUnavailable as unavailable:
            reasons.append(str(unavailable))
    raise EnergyUnavailable("; ".join(reasons))
