"""The embedded broker: keeps its data over a crash, and never outlives its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

OWNER = """
import signal, sys, time
from pathlib import Path
from medloop_services.bus.broker import EmbeddedBroker
# A shell that starts its tests in the background has them ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
broker = EmbeddedBroker(Path(sys.argv[1]))
broker.start()
print(broker.pid, flush=True)
try:
    time.sleep(600)
finally:
    broker.stop()
"""


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or while it was read
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_java_outlives_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert owner.stdout is not None
    java = int(owner.stdout.readline())
    assert runs(java)
    owner.send_signal(number)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 30
    while runs(java) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(java)


def test_no_java_outlives_its_guard(tmp_path: Path) -> None:
    from medloop_services.bus.broker import EmbeddedBroker

    broker = EmbeddedBroker(tmp_path)
    broker.start()
    java = broker.pid
    assert java is not None
    guard = int(Path(f"/proc/{java}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while runs(java) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(java)
    assert not broker.alive()
    broker.stop()
