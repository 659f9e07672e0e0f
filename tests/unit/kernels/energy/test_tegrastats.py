"""tegrastats' lines as Jetsons print them, read from a file and from a running process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from medloop_kernels import EnergyUnavailable
from medloop_kernels.energy import tegrastats
from medloop_kernels.energy.tegrastats import Integral, Tegrastats, watts

RECORDED = Path(__file__).parent
ORIN_NANO = RECORDED / "tegrastats_orin_nano.txt"
AGX_ORIN = RECORDED / "tegrastats_agx_orin.txt"
PATIENCE_S = 20.0
READER = """
from medloop_kernels.energy.tegrastats import Tegrastats
meter = Tegrastats()
print("open", flush=True)
input()
"""


def installed(folder: Path, program: str) -> None:
    """A shell program under tegrastats' name."""
    command = folder / "tegrastats"
    command.write_text(f"#!/bin/sh\n{program}\n")
    command.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def test_power_now_and_not_on_average_is_read():
    assert [watts(line) for line in ORIN_NANO.read_text().splitlines()] == [4.654, 4.541, 7.121]


@pytest.mark.parametrize("line", [AGX_ORIN.read_text(), "", "VDD_IN 4654mW", "XVDD_IN 4654mW/4654mW"])
def test_a_line_that_names_no_input_power_is_refused(line):
    with pytest.raises(EnergyUnavailable, match="names no VDD_IN"):
        watts(line)


def test_energy_is_the_area_under_the_readings():
    integral = Integral()
    for power, moment in [(4.0, 10.0), (6.0, 10.5), (6.0, 12.5)]:
        integral.add(power, moment)
    assert integral.joules == 0.5 * 5.0 + 2.0 * 6.0


def test_a_running_tegrastats_is_integrated_and_its_end_is_noticed(path):
    installed(path, f'while read -r line; do echo "$line"; sleep 0.1; done < {ORIN_NANO}')
    began = time.monotonic()
    meter = Tegrastats()
    assert meter.source == "tegrastats VDD_IN"
    joules = last_reading(meter)
    # Two intervals of a tenth of a second or more, between 4.541 and 7.121 W.
    assert 0.2 * 4.541 < joules < (time.monotonic() - began) * 7.121
    with pytest.raises(EnergyUnavailable, match="tegrastats has ended with 0"):
        meter.joules()


def last_reading(meter: Tegrastats) -> float:
    """Read until tegrastats has ended."""
    joules, deadline = 0.0, time.monotonic() + PATIENCE_S
    with suppress(EnergyUnavailable):
        while time.monotonic() < deadline:
            joules = meter.joules()
            time.sleep(0.01)
    return joules


@pytest.mark.parametrize(
    ("program", "sentence"),
    [(f"cat {AGX_ORIN}; exec sleep 60", "names no VDD_IN"), ("exit 3", "tegrastats has ended with 3")],
    ids=["another-module", "ends"],
)
def test_a_tegrastats_that_says_no_power_is_refused(path, program, sentence):
    installed(path, program)
    with pytest.raises(EnergyUnavailable, match=sentence):
        Tegrastats()


def test_a_silent_tegrastats_is_not_waited_for(path, monkeypatch):
    monkeypatch.setattr(tegrastats, "FIRST_LINE_S", 0.2)
    installed(path, "exec sleep 60")
    with pytest.raises(EnergyUnavailable, match=r"said nothing for 0\.2 s"):
        Tegrastats()


def test_a_machine_that_is_no_jetson_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EnergyUnavailable, match="no tegrastats is on the PATH"):
        Tegrastats()


def test_tegrastats_does_not_outlive_the_process_that_started_it(path):
    installed(path, f"echo $$ > {path}/pid; while :; do head -n 1 {ORIN_NANO} || exit; sleep 0.1; done")
    reader = subprocess.Popen([sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"open\n"
    reader.kill()
    reader.communicate()
    process = Path("/proc", (path / "pid").read_text().strip(), "cmdline")
    deadline = time.monotonic() + PATIENCE_S
    while process.exists() and process.read_bytes():  # empty once it has ended and nobody collected it
        assert time.monotonic() < deadline
        time.sleep(0.05)
