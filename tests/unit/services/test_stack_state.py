"""`stack.json` after a crash, a reboot or a second start: nobody else's process is stopped or forgotten."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from medloop_services.stack import STATE_FILE, Stack, began, read_state, stop_supervisor


@dataclass
class NoBroker:
    bootstrap: str = "127.0.0.1:1"

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def alive(self) -> bool:
        return True


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def started(folder: Path) -> Stack:
    stack = Stack(folder, broker=NoBroker(), names=())
    stack.start()
    return stack


def test_a_number_that_is_another_processs_now_is_nobody(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    started(tmp_path)
    path = tmp_path / STATE_FILE
    fields = orjson.loads(path.read_bytes())
    assert read_state(tmp_path) is not None
    path.write_bytes(orjson.dumps(fields | {"supervisor": stranger.pid}))
    assert read_state(tmp_path) is None
    assert not stop_supervisor(tmp_path)
    assert stranger.poll() is None


def test_a_stack_leaves_anothers_file(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    mine = started(tmp_path)
    path = tmp_path / STATE_FILE
    fields = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps(fields | {"supervisor": stranger.pid, "began": began(stranger.pid)}))
    mine.stop()
    assert path.exists()


def test_models_are_where_the_setting_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDLOOP_ARTIFACTS", raising=False)
    assert Stack(tmp_path).artifacts == (tmp_path / "artifacts").resolve().as_uri()
    monkeypatch.setenv("MEDLOOP_ARTIFACTS", "s3://models/ward")
    assert Stack(tmp_path).artifacts == "s3://models/ward"
    assert Stack(tmp_path, {"MEDLOOP_ARTIFACTS": "s3://own"}).artifacts == "s3://own"
