"""What serving costs in energy: joules of the machine while a network runs, counted for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog
from medloop_kernels import EnergyMeter, EnergyUnavailable, open_meter
from medloop_model.engine import EngineOutput
from numpy.typing import NDArray
from prometheus_client import Counter

from medloop_services.bus.health import Health

_log = structlog.get_logger(__name__)

# Without a label there would be a counter at 0 where nothing is measured.
JOULES = Counter(
    "medloop_inference_energy_joules", "Energy of the whole machine while networks ran, J", ["source"]
)
CAUSE = "energy"

Run = Callable[[NDArray[np.uint8]], EngineOutput]


def metered(run: Run, health: Health) -> Run:
    """A forward pass whose energy is counted; where none can be read, itself, and the log says why.

    Args:
        run: the forward pass.
        health: told when energy can no longer be read.
    """
    try:
        return Metered(run, open_meter(), health)
    except EnergyUnavailable as unavailable:
        _log.info("energy is not counted", reason=str(unavailable))
        return run


@dataclass(frozen=True, slots=True)
class Metered:
    """A forward pass between two readings; it also runs without them, since images must be served."""

    run: Run
    meter: EnergyMeter
    health: Health

    def __call__(self, images: NDArray[np.uint8]) -> EngineOutput:
        """As `run` does."""
        before = self._joules()
        output = self.run(images)
        after = self._joules()
        if before is not None and after is not None:
            JOULES.labels(self.meter.source).inc(after - before)
        return output

    def _joules(self) -> float | None:
        try:
            joules = self.meter.joules()
        except EnergyUnavailable as unavailable:
            self.health.degrade(CAUSE, f"energy is no longer counted: {unavailable}")
            return None
        self.health.clear(CAUSE)
        return joules
