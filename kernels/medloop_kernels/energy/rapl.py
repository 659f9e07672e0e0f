"""Running Average Power Limit: energy counters of Intel's and AMD's processors, read from Linux's powercap.

A zone's `energy_uj` counts microjoules and starts again at 0 past `max_energy_range_uj` (Linux,
Documentation/power/powercap/powercap.rst), which a busy server reaches in some 20 minutes.
"""

from __future__ import annotations

from pathlib import Path

from medloop_kernels.errors import EnergyUnavailable

POWERCAP = Path("/sys/class/powercap")
MICROJOULES = 1_000_000
"""In one joule."""


class Rapl:
    """Energy of all processor packages and of the memory beside them.

    Must be read once before a counter comes round twice.

    Args:
        powercap: the folder of the zones.

    Raises:
        EnergyUnavailable: there is no zone, or this user may not read one.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        # `core` and `uncore` are parts of a package, and `psys` holds all of them: each would count twice.
        # So would `intel-rapl-mmio`, another door to the same counter.
        named = {_name(zone): zone for zone in sorted(powercap.glob("intel-rapl:*"))}
        self._zones = {name: zone for name, zone in named.items() if name.startswith(("package", "dram"))}
        if not self._zones:
            raise EnergyUnavailable(f"{powercap} has no RAPL zone: virtual machines and Arm have none")
        self._ranges = {name: _count(zone / "max_energy_range_uj") for name, zone in self._zones.items()}
        self._last = self._counts()
        self._microjoules = 0

    @property
    def source(self) -> str:
        """The zones, by name."""
        return f"RAPL {', '.join(self._zones)}"

    def joules(self) -> float:
        """Energy since this meter was made, J.

        Raises:
            EnergyUnavailable: a zone can't be read any more.
        """
        now = self._counts()
        self._microjoules += sum(
            used(self._last[name], count, self._ranges[name]) for name, count in now.items()
        )
        self._last = now
        return self._microjoules / MICROJOULES

    def _counts(self) -> dict[str, int]:
        return {name: _count(zone / "energy_uj") for name, zone in self._zones.items()}


def used(before: int, after: int, largest: int) -> int:
    """Microjoules between two readings of a counter that starts again at 0 past `largest`.

    >>> used(990, 30, largest=999)
    40
    """
    return (after - before) % (largest + 1)


def _name(zone: Path) -> str:
    """`package-0`; of a zone within it `dram of intel-rapl:0`, since each package has one of that name."""
    name = _text(zone / "name")
    parent, _, _ = zone.name.rpartition(":")
    return name if parent == "intel-rapl" else f"{name} of {parent}"


def _count(file: Path) -> int:
    return int(_text(file))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except PermissionError as error:
        raise EnergyUnavailable(
            f"RAPL's {file} is for root alone: let this user's group read it by a udev rule"
        ) from error
    except OSError as error:
        raise EnergyUnavailable(f"RAPL's {file} can't be read ({error})") from error
