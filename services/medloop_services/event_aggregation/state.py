"""What event_aggregation remembers of one site: last values, so that a repeat or a loss costs nothing."""

from __future__ import annotations

from typing import ClassVar

from medloop_schemas import AdaptationRequested, DetectorReading, DriftSignalled
from medloop_schemas.identity import Identifier
from pydantic import BaseModel, ConfigDict, Field

from medloop_services.bus.processor import ServiceState


class Alarm(BaseModel):
    """An unbroken run of alarmed signals of one device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    began: int = Field(ge=0, description="sequence of the signal it began with")
    first: DetectorReading = Field(description="what alarmed first")


class DeviceStanding(BaseModel):
    """Where a device stands: its last signal, and since when it has been alarmed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signal: DriftSignalled
    inputs: Alarm | None = None
    """Of the data, feature, activation and decision layers."""
    labels: Alarm | None = None
    """Of the error rate that labels reveal."""


class AggregationState(ServiceState):
    """A site's devices, and the request that is open, if any."""

    entries: ClassVar[tuple[str, ...]] = ("devices",)

    site_id: Identifier
    devices: dict[str, DeviceStanding] = Field(default_factory=dict)
    open: AdaptationRequested | None = None
    signals_since_sent: int = 0
    undecided: str | None = None
    """What is being waited for, while something has alarmed and nothing is decided."""
