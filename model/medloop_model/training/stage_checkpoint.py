"""What a stage of training goes on from after its process was killed: one file, every so many steps.

Weights, the optimiser's moments and the random generator's state are all that a step depends on beside the
data, so a stage that was interrupted ends with the same bytes as one that was not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medloop_model.errors import CorruptCheckpoint
from medloop_model.training.adam import AdamW

GENERATOR = "generator"
STEPS_BETWEEN = 50
"""Two writes: some twenty seconds of one core."""


@dataclass(frozen=True)
class StageCheckpoint:
    """One stage's file.

    Args:
        path: the file; a whole one takes the place of the last.
        identity: of what is trained, how and on what; the file of another identity is not gone on from.
    """

    path: Path
    identity: str

    def restore(self, optimiser: AdamW, generator: torch.Generator) -> int:
        """Set both to where the file left off and return the steps done; 0 where there is nothing.

        Raises:
            CorruptCheckpoint: the file is damaged; training begins anew once it is removed.
        """
        if not self.path.exists():
            return 0
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("identity") != self.identity:
                    return 0
                for name, tensor in _tensors(optimiser).items():
                    tensor.copy_(file.get_tensor(name))
                generator.set_state(file.get_tensor(GENERATOR))
                optimiser.steps = int(metadata["steps"])
                done = int(metadata["done"])
        except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
            reason = f"can't be gone on from ({error}); remove it to train from the beginning"
            raise CorruptCheckpoint(self.path, reason) from error
        return done

    def keep(self, optimiser: AdamW, generator: torch.Generator, *, done: int, last: bool) -> None:
        """Write the file if it is time to, or if this was the `last` step.

        Args:
            optimiser, generator: what goes on from here.
            done: steps, with those that the optimiser refused since there was no finite way down.
            last: whether this was the last one.
        """
        if done % STEPS_BETWEEN and not last:
            return
        metadata = {"identity": self.identity, "steps": str(optimiser.steps), "done": str(done)}
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            save_file(_tensors(optimiser) | {GENERATOR: generator.get_state()}, temporary, metadata)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


def _tensors(optimiser: AdamW) -> dict[str, Tensor]:
    return {"weights": optimiser.weights, "first": optimiser.first, "second": optimiser.second}
