"""Bad input on the command line: one sentence that says what to do, and 2 where a setting is to blame."""

from __future__ import annotations

import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medloop_model import pretrained
from medloop_services import cli
from medloop_services.cli.models import kernels

Run = Callable[..., tuple[int, str]]

FAILED = 1
WRONG_SETTING = 2

HALF = pretrained.path("phantom").read_bytes()[:100_000]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `medloop …` in a folder of its own; returns its exit status and what it said on standard error."""
    for module in ("runner", "logs"):
        monkeypatch.setattr(f"medloop_services.bus.{module}.configure_logs", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDLOOP_KAFKA", raising=False)

    def command(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["medloop", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().err

    return command


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty images in MedMNIST's layout, of the classes that the phantom model knows."""
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = draw.integers(0, 256, (40, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.arange(40).reshape(40, 1) % 2
    path = tmp_path / "forty.npz"
    np.savez(path, **arrays)
    return path


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
        return Path.touch, (self._target,)


def test_a_pickled_checkpoint_is_named_and_never_loaded(run: Run, data: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    model = tmp_path / "model.safetensors"
    model.write_bytes(pickle.dumps(Trap(sprung)))
    status, told = run("evaluate", "--data", data, "--model", model)
    assert status == FAILED
    assert str(model) in told
    assert "safetensors" in told
    assert not sprung.exists()


@pytest.mark.parametrize("content", [HALF, b"", b"no tensors at all"], ids=["half", "empty", "other"])
def test_a_broken_checkpoint_is_named(run: Run, data: Path, tmp_path: Path, content: bytes) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(content)
    status, told = run("evaluate", "--data", data, "--model", model)
    assert status == FAILED
    assert f"{model}: can't be read as safetensors" in told
    assert "fetch or export the file again" in told


def test_a_model_that_is_not_there_is_named(run: Run, data: Path, tmp_path: Path) -> None:
    status, told = run("evaluate", "--data", data, "--model", tmp_path / "nothing")
    assert status == FAILED
    assert str(tmp_path / "nothing") in told


@pytest.mark.parametrize("command", [("evaluate", "--model", "m"), ("simulate",), ("replay",)])
def test_an_unreadable_npz_is_named(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK\x03\x04 and no more")
    status, told = run(*command, "--data", path)
    assert status == FAILED
    assert str(path) in told
    assert "save it again" in told


def test_a_pickled_npz_is_never_loaded(run: Run, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    path = tmp_path / "objects.npz"
    np.savez(path, train_images=np.array([Trap(sprung)], dtype=object))
    status, told = run("evaluate", "--model", "m", "--data", path)
    assert status == FAILED
    assert str(path) in told
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("service", "variable", "value", "allowed"),
    [
        ("inference", "MEDLOOP_BATCH_EVENTS", "0", "≥ 1"),
        ("inference", "MEDLOOP_KAFKA", "no port", "host:port"),
        ("inference", "MEDLOOP_HEALTH_PORT", "70000", "≤ 65535"),
        ("inference", "MEDLOOP_INFERENCE_BATCH_IMAGES", "many", "int"),
        ("publisher", "MEDLOOP_PUBLISHER_CONFIDENCE", "1.5", "< 1"),
        ("publisher", "MEDLOOP_PUBLISHER_SITES", "a ward", "sites"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_range(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, service: str, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    status, told = run("service", service)
    assert status == WRONG_SETTING
    assert variable in told
    assert value in told
    assert allowed in told


def test_a_publisher_refuses_a_pickled_first_model(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    monkeypatch.setenv("MEDLOOP_PUBLISHER_MODEL", str(model))
    status, told = run("service", "publisher")
    assert status == WRONG_SETTING
    assert f"MEDLOOP_PUBLISHER_MODEL={model}" in told


def test_a_taken_health_port_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, taken_port: int) -> None:
    monkeypatch.setenv("MEDLOOP_HEALTH_PORT", str(taken_port))
    status, told = run("service", "inference")
    assert status == WRONG_SETTING
    assert f"MEDLOOP_HEALTH_PORT={taken_port}" in told
    assert "choose another" in told


def test_a_service_that_does_not_exist_is_answered_with_those_that_do(run: Run) -> None:
    status, told = run("service", "inferrence")
    assert status == WRONG_SETTING
    assert "'inferrence'" in told
    assert "inference, online_learner, publisher" in told


@pytest.mark.parametrize("command", [("replay", "--rate", "5"), ("record", "out.parquet"), ("dlq", "list")])
def test_without_a_broker_a_command_says_how_to_get_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Path, command: tuple[str, ...]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MEDLOOP_KAFKA", f"127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setenv("MEDLOOP_REPLAY_IMAGES_BEFORE", "4")
    monkeypatch.setenv("MEDLOOP_REPLAY_IMAGES_AFTER", "4")
    options = ("--data", str(data)) if command[0] == "replay" else ()
    status, told = run(*command, *options)
    assert status == FAILED
    assert "medloop up" in told
    assert "MEDLOOP_KAFKA" in told
    assert not (tmp_path / "out.parquet").exists()


def test_a_recording_that_is_none_is_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "incident.parquet"
    path.write_bytes(b"not parquet")
    status, told = run("replay", path)
    assert status == FAILED
    assert str(path) in told


def test_square_brackets_of_an_error_are_said_too(
    run: Run, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("MEDLOOP_KERNELS", "tensorrt")
    status, told = run("evaluate", "--data", data, "--model", pretrained.path("phantom"))
    assert status == FAILED
    assert "pip install 'medloop-kernels[tensorrt]'" in told


def test_square_brackets_of_a_reason_are_in_the_table_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("COLUMNS", "600")
    kernels()
    assert "pip install 'medloop-kernels[tensorrt]'" in capsys.readouterr().out


def test_a_split_that_does_not_exist_is_answered_with_those_that_do(run: Run, data: Path) -> None:
    status, told = run("evaluate", "--data", data, "--model", pretrained.path("phantom"), "--split", "tset")
    assert status == WRONG_SETTING
    assert "train, validation or test" in told


def test_a_file_that_can_not_be_written_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file, no folder")
    status, said = run("site-key", "--out", "keys/mine/ash.pem")
    assert status == FAILED
    assert "Not a directory: 'keys" in said
    assert "Traceback" not in said


def test_nobody_is_poisoned_where_there_are_no_sites(run: Run) -> None:
    status, said = run("simulate", "--data", "phantoms", "--poisoned", "1")
    assert status == WRONG_SETTING
    assert "--poisoned 1 needs --sites" in said
