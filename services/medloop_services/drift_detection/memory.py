"""How arrays are remembered: little-endian float32 as base64, so that a state is small and its JSON exact."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from medloop_services.drift_detection.detectors.detector import FloatArray, Memory

PACKED_TYPE = np.dtype("<f4")


class Packed(BaseModel):
    """An array."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, ...]
    values: str

    @classmethod
    def of(cls, array: FloatArray) -> Packed:
        """Return an array packed; what float32 can't hold of it is lost, in service as after a restart."""
        values = np.ascontiguousarray(array, PACKED_TYPE).tobytes()
        return cls(shape=array.shape, values=base64.b64encode(values).decode())

    def unpacked(self) -> FloatArray:
        """Return the array."""
        values = np.frombuffer(base64.b64decode(self.values), PACKED_TYPE)
        return values.reshape(self.shape).astype(np.float64)


def packed(memory: Memory) -> dict[str, Packed]:
    """Return a memory packed."""
    return {name: Packed.of(array) for name, array in memory.items()}


def unpacked(memory: Mapping[str, Packed]) -> Memory:
    """Return the memory that was packed."""
    return {name: array.unpacked() for name, array in memory.items()}
