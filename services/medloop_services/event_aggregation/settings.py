"""Settings of event_aggregation: `MEDLOOP_EVENT_AGGREGATION_*`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class EventAggregationSettings(BaseSettings):
    """How long and how widely an alarm must last, and what tells the diagnoses apart."""

    model_config = SettingsConfigDict(env_prefix="MEDLOOP_EVENT_AGGREGATION_", frozen=True, extra="ignore")

    quorum: float = Field(
        default=0.5, gt=0, le=1, description="share of a site's active devices that must be alarmed"
    )
    persistence_images: int = Field(
        default=16, ge=0, le=10_000, description="images that a device's alarm must last to count"
    )
    lone_persistence_images: int = Field(
        default=96, ge=0, le=100_000, description="images after which one device's alarm is enough"
    )
    prior_persistence_images: int = Field(
        default=64,
        ge=0,
        le=100_000,
        description="images that a device's mix of answers must have moved for to count",
    )
    confidence: float = Field(
        default=0.85, gt=0.5, lt=1, description="probability from which a cause is named, and acted upon"
    )
    closing_images: int = Field(
        default=32,
        ge=0,
        le=100_000,
        description="images of a device without alarm after which its stream is back",
    )
    recovery_images: int = Field(
        default=256,
        ge=0,
        le=100_000,
        description="images after a sensor fault until a device's other detectors, full of it, count",
    )
    active_seconds: float = Field(
        default=86_400, gt=0, description="event time after which a silent device is not counted, s"
    )
    shifted_share: float = Field(
        default=0.5, gt=0, le=1, description="share of changed images above which a shift is of all images"
    )
    unknown_labels: int = Field(
        default=3, ge=1, le=1000, description="labels of a class the model lacks that make it a new class"
    )
    settling_labels: int = Field(
        default=48,
        ge=1,
        le=100_000,
        description="images since the change whose labels settle an unclear case",
    )
    requested_labels: int = Field(
        default=48, ge=0, le=10_000, description="labels asked for in one incident, at most; 0: none"
    )
    stratum_labels: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="of those, for a device's images of one class before or after the change, at most",
    )
    signals_per_repeat: int = Field(
        default=32, ge=1, le=100_000, description="signals of a site between repeats of what is open"
    )
