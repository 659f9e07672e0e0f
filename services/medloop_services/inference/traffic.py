"""What serving moves: bytes of weights and activations that layers read and wrote, counted for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from medloop_kernels import CompiledNetwork
from medloop_model.engine import Engine, EngineOutput
from numpy.typing import NDArray
from prometheus_client import Counter

from medloop_services.inference.energy import Run

MOVED = Counter("medloop_inference_moved_bytes", "Bytes that layers of networks read and wrote", ["what"])


def counted(engine: Engine) -> Run:
    """A forward pass whose bytes are counted; where a back end counts none, the engine itself."""
    return engine if engine.compiled is None else Counted(engine, engine.compiled)


@dataclass(frozen=True, slots=True)
class Counted:
    """A forward pass between two readings of what its network has moved."""

    engine: Engine
    network: CompiledNetwork

    def __call__(self, images: NDArray[np.uint8]) -> EngineOutput:
        """As the engine does."""
        before = self.network.traffic
        output = self.engine(images)
        after = self.network.traffic
        MOVED.labels("weights").inc(after.weights - before.weights)
        MOVED.labels("activations").inc(after.activations - before.activations)
        return output
