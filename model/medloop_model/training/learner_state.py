"""Where a streaming learner stands between two mini-batches, and the file it goes on from.

A state is all that the next step depends on beside the learner's fixed parts. Written and read again, it goes
on with the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medloop_model.errors import CorruptCheckpoint
from medloop_model.training.memory import Memory

_TENSORS = ("latent", "average", "first", "second", "generator")
_COUNTS = ("steps", "seen", "corrected", "quarantined", "imprinted")
_MEMORIES = ("old", "new")


@dataclass(frozen=True, eq=False)
class LearnerState:
    """Frozen: a step returns another one, and nobody changes a tensor in here.

    Args:
        latent: the parameters that move, one after the other, float32 (P,).
        average: their moving average, which is what is exported (P,).
        first, second: Adam's moments of them (P,).
        steps: optimiser steps so far.
        seen: new images so far.
        corrected: labels that replaced another one so far.
        quarantined: new images so far whose step was undone.
        imprinted: classes whose row of the head has been started.
        generator: state of the random generator, uint8.
        old: what is rehearsed of before.
        new: what is rehearsed of the stream.
    """

    latent: Tensor
    average: Tensor
    first: Tensor
    second: Tensor
    steps: int
    seen: int
    corrected: int
    quarantined: int
    imprinted: int
    generator: Tensor
    old: Memory
    new: Memory

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything as tensors, for a safetensors file."""
        tensors = {"counts": torch.tensor([getattr(self, name) for name in _COUNTS])}
        tensors |= {name: getattr(self, name) for name in _TENSORS}
        for part in _MEMORIES:
            tensors |= {f"{part}/{name}": tensor for name, tensor in getattr(self, part).to_tensors().items()}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LearnerState:
        """Inverse of `to_tensors`.

        Raises:
            KeyError, ValueError: a tensor is missing, or holds something else.
        """
        steps, seen, corrected, quarantined, imprinted = tensors["counts"].tolist()
        return cls(
            **{name: tensors[name] for name in _TENSORS},
            steps=steps,
            seen=seen,
            corrected=corrected,
            quarantined=quarantined,
            imprinted=imprinted,
            old=Memory.from_tensors(_under("old", tensors)),
            new=Memory.from_tensors(_under("new", tensors)),
        )


def save_state(state: LearnerState, path: Path, identity: str) -> None:
    """Write a state in one step: a reader sees the old file or the whole new one, and no other user sees it.

    Args:
        state: what to write.
        path: its file; the folder is made.
        identity: of what has been learned, how and from what.

    Raises:
        OSError: no space, no right to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(state.to_tensors(), temporary, {"identity": identity})
        temporary.chmod(0o600)  # images are in it
        temporary.replace(path)
    except SafetensorError as error:
        raise OSError(f"{path} can't be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path, identity: str) -> LearnerState | None:
    """Read a state; None if the file is of another identity, and so nothing to go on from.

    Raises:
        CorruptCheckpoint: the file is missing, damaged, or no learner's state.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("identity") != identity:
                return None
            return LearnerState.from_tensors({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CorruptCheckpoint(path, f"can't be gone on from ({error})") from error


def _under(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
