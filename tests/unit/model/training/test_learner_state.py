from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from medloop_model.errors import CorruptCheckpoint
from medloop_model.training.learner_state import LearnerState, load_state, save_state
from medloop_model.training.memory import Memory
from safetensors.torch import save_file
from torch import Tensor


def memory(ids: tuple[str, ...]) -> Memory:
    count = len(ids)
    return Memory(
        ids,
        ("home",) * count,
        torch.arange(count * 4, dtype=torch.uint8).view(count, 2, 2, 1),
        torch.arange(count),
        torch.rand(count, 3),
        torch.zeros(count, 0),
    )


@pytest.fixture
def state() -> LearnerState:
    return LearnerState(
        latent=torch.rand(9),
        average=torch.rand(9),
        first=torch.rand(9),
        second=torch.rand(9),
        steps=7,
        seen=32,
        corrected=2,
        quarantined=16,
        imprinted=3,
        generator=torch.Generator().manual_seed(5).get_state(),
        old=memory(("a", "b", "c")),
        new=memory(()),
    )


def test_no_other_user_reads_a_state(state: LearnerState, tmp_path: Path) -> None:
    save_state(state, tmp_path / "state.safetensors", "me")
    assert (tmp_path / "state.safetensors").stat().st_mode & 0o077 == 0


def test_a_state_read_again_is_the_same_to_the_bit(state: LearnerState, tmp_path: Path) -> None:
    save_state(state, tmp_path / "folder" / "state.safetensors", "me")
    again = load_state(tmp_path / "folder" / "state.safetensors", "me")
    assert again is not None
    before, after = state.to_tensors(), again.to_tensors()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert torch.equal(tensor, after[name]), name
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["state.safetensors"]


@pytest.fixture
def no_space() -> Iterator[None]:
    """Files may grow to 256 bytes and no further."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("no_space")
def test_a_full_disk_is_an_error_of_the_system_and_leaves_nothing(
    state: LearnerState, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=r"state\.safetensors"):
        save_state(state, tmp_path / "state.safetensors", "me")
    assert list(tmp_path.iterdir()) == []


def test_every_field_is_in_the_tensors(state: LearnerState) -> None:
    again = LearnerState.from_tensors(state.to_tensors())
    for field in fields(LearnerState):
        value, read = getattr(state, field.name), getattr(again, field.name)
        if isinstance(value, Tensor):
            assert torch.equal(read, value), field.name
        elif isinstance(value, int):
            assert read == value, field.name


def test_a_state_of_something_else_is_not_gone_on_from(state: LearnerState, tmp_path: Path) -> None:
    save_state(state, tmp_path / "state", "somebody")
    assert load_state(tmp_path / "state", "me") is None


@pytest.mark.parametrize("damage", ["missing", "cut", "pickled", "a tensor less"])
def test_a_damaged_file_is_a_typed_error(state: LearnerState, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state"
    if damage == "pickled":
        torch.save({"latent": torch.zeros(1)}, path)
    elif damage == "cut":
        save_state(state, path, "me")
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "a tensor less":
        save_file({"counts": torch.zeros(5, dtype=torch.int64)}, path, {"identity": "me"})
    with pytest.raises(CorruptCheckpoint):
        load_state(path, "me")
