"""What event_aggregation remembers of one site: last values, so that a repeat or a loss costs nothing."""

from __future__ import annotations

from typing import ClassVar

from medloop_schemas import AdaptationRequested, DetectorReading, DriftDiagnosed, DriftSignalled
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
    prior: Alarm | None = None
    """Of the mix of predicted classes."""
    sensor: Alarm | None = None
    """Of the frames themselves; while there is one, and for a while after, the others are not listened to."""
    faulty_at: int | None = None
    """Sequence of the last signal with a sensor fault."""


class Incident(BaseModel):
    """Something that has changed and is not over: one event of many devices' alarms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: DriftDiagnosed = Field(description="what was last said of it")
    signals_since_sent: int = 0
    quiet: dict[str, int] = Field(
        default_factory=dict, description="while nothing is found: device → its sequence when that began"
    )
    asked: dict[str, str] = Field(
        default_factory=dict, description="image whose label was asked for → its stratum"
    )


class AggregationState(ServiceState):
    """A site's devices, the request that is open, if any, and what is being diagnosed."""

    entries: ClassVar[tuple[str, ...]] = ("devices",)

    site_id: Identifier
    devices: dict[str, DeviceStanding] = Field(default_factory=dict)
    open: AdaptationRequested | None = None
    signals_since_sent: int = 0
    number: int = 0
    """Of the next message on what is diagnosed."""
    incident: Incident | None = None
    """Of devices whose frames are good."""
    fault: Incident | None = None
    """Of devices whose frames are not."""
    undecided: str | None = None
    """What is being waited for, while something has alarmed and nothing is decided."""
