"""The whole loop on drawn radiographs: in one process for every scenario, and on a broker under kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from medloop_services.stack import SERVICES, read_state

pytestmark = pytest.mark.slow

MEDLOOP = [sys.executable, "-m", "medloop_services.cli"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("MEDLOOP_")}
BETWEEN_KILLS_S = 9.0


def figures_of(path: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(path.read_bytes())
    return figures


@pytest.mark.parametrize("scenario", ["data-drift", "concept-drift", "new-class"])
def test_it_closes_in_one_process(scenario: str, tmp_path: Path) -> None:
    command = [*MEDLOOP, "simulate", "--data", "phantoms", "--scenario", scenario, "--no-oracle"]
    paths = ["--report", str(tmp_path / "report.html"), "--json", str(tmp_path / "figures.json")]
    done = subprocess.run([*command, *paths], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    figures = figures_of(tmp_path / "figures.json")
    assert figures["closed"]
    assert figures["diagnosis"] == scenario
    assert (tmp_path / "report.html").read_text().count("<svg") > 3, "plots, and where the drift is"


def test_it_closes_on_a_broker_though_everything_is_killed_once(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    command = [*MEDLOOP, "demo", "--data", "phantoms", "--no-oracle", "--folder", str(folder)]
    paths = ["--report", str(tmp_path / "report.html"), "--json", str(tmp_path / "figures.json")]
    with (tmp_path / "demo.out").open("wb") as out:
        demo = subprocess.Popen([*command, *paths], env=ENVIRONMENT, stdout=out, stderr=subprocess.STDOUT)
        try:
            killed = kill_everything_once(folder, demo)
            status = demo.wait(timeout=900)
        finally:
            demo.terminate()
            demo.wait(timeout=60)
    assert status == 0, (tmp_path / "demo.out").read_text(errors="replace")[-3000:]
    figures = figures_of(tmp_path / "figures.json")
    assert killed == {*SERVICES, "broker"}
    assert figures["closed"]
    assert figures["events"]["lost"] == 0
    assert figures["events"]["duplicates_in_effect"] == 0
    assert figures["events"]["predictions"] == figures["events"]["images"]


def kill_everything_once(folder: Path, demo: subprocess.Popen[bytes]) -> set[str]:
    """Kill each service and the broker, one at a time, while the stream runs."""
    while not (folder / "artifacts").is_dir():
        assert demo.poll() is None, "the demo ended before its stack was up"
        time.sleep(0.2)
    time.sleep(2 * BETWEEN_KILLS_S)
    killed = set()
    for name in [*SERVICES, "broker"]:
        state = read_state(folder)
        if state is None or demo.poll() is not None:
            break
        os.kill(java_of(demo.pid) if name == "broker" else state.services[name].pid, signal.SIGKILL)
        killed.add(name)
        time.sleep(BETWEEN_KILLS_S)
    return killed


def java_of(pid: int) -> int:
    children = psutil.Process(pid).children(recursive=True)
    return next(child.pid for child in children if "kafka.Kafka" in child.cmdline())
