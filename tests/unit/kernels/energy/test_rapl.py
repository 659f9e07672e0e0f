"""RAPL's counters, from a tree as Linux lays it out on a server of two packages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from medloop_kernels import EnergyUnavailable
from medloop_kernels.energy.rapl import Rapl, used

RANGE = 262_143_328_850  # µJ, of an Intel Xeon
ZONES = {
    "intel-rapl:0": ("package-0", 1_000_000),
    "intel-rapl:0:0": ("core", 600_000),
    "intel-rapl:0:1": ("dram", 200_000),
    "intel-rapl:1": ("package-1", RANGE - 499_999),
    "intel-rapl:1:0": ("dram", 0),
    "intel-rapl:2": ("psys", 9_000_000),
    "intel-rapl-mmio:0": ("package-0", 1_000_000),
}


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    for zone, (name, count) in ZONES.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
        (tmp_path / zone / "energy_uj").write_text(f"{count}\n")
    return tmp_path


def count(powercap: Path, zone: str, microjoules: int) -> None:
    (powercap / zone / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_and_their_memory_count_once(powercap):
    meter = Rapl(powercap)
    assert meter.source == "RAPL package-0, dram of intel-rapl:0, package-1, dram of intel-rapl:1"
    assert meter.joules() == 0
    for zone, (_, before) in ZONES.items():
        if "package-1" not in ZONES[zone]:
            count(powercap, zone, before + 3_000_000)
    assert meter.joules() == 9.0, "package-0 and both memories; not its cores, not the whole platform"
    assert meter.joules() == 9.0


def test_a_counter_that_came_round_is_counted_on(powercap):
    meter = Rapl(powercap)
    count(powercap, "intel-rapl:1", 1_500_000)
    assert meter.joules() == 2.0
    count(powercap, "intel-rapl:1", 1_250_000)
    assert meter.joules() == pytest.approx(2.0 + RANGE / 1e6 - 0.25)


@pytest.mark.parametrize(
    ("before", "after", "microjoules"), [(5, 5, 0), (5, 999, 994), (999, 0, 1), (1, 0, 999), (0, 999, 999)]
)
def test_microjoules_between_two_readings(before, after, microjoules):
    assert used(before, after, largest=999) == microjoules


def test_a_machine_without_zones_says_so(tmp_path):
    with pytest.raises(EnergyUnavailable, match="has no RAPL zone"):
        Rapl(tmp_path)
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "name").write_text("psys\n")
    with pytest.raises(EnergyUnavailable, match="has no RAPL zone"):
        Rapl(tmp_path)


def test_a_zone_that_goes_away_says_so(powercap):
    meter = Rapl(powercap)
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(EnergyUnavailable, match=r"intel-rapl:0/energy_uj can't be read"):
        meter.joules()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_counter_for_root_alone_names_the_remedy(powercap):
    (powercap / "intel-rapl:0" / "energy_uj").chmod(0)
    with pytest.raises(EnergyUnavailable, match=r"for root alone: .*udev rule"):
        Rapl(powercap)
