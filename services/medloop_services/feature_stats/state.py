"""What feature_stats remembers of one device."""

from __future__ import annotations

from typing import ClassVar

from medloop_schemas import ImageStatistics
from medloop_schemas.identity import Identifier
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from medloop_services.bus.processor import ServiceState

NOTHING_YET = -1
"""Sequence before a device's first event."""


class MeasuredPrediction(BaseModel):
    """What a prediction says of an image, measured; it waits for the image's own data layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site_id: Identifier
    model_version: Identifier
    time: AwareDatetime
    statistics: ImageStatistics
    """Complete but for the data layer, which is empty."""


class JoinState(ServiceState):
    """Halves of pairs, and the micro-batch being filled; dictionary keys are the image's `sequence_key`."""

    entries: ClassVar[tuple[str, ...]] = ("images", "predictions", "batch")

    device_id: Identifier
    last_image: int = NOTHING_YET
    last_prediction: int = NOTHING_YET
    images: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Data layer of images whose prediction has not come."""
    predictions: dict[str, MeasuredPrediction] = Field(default_factory=dict)
    """Predictions whose image has not come."""
    batch: dict[str, MeasuredPrediction] = Field(default_factory=dict)
    """Complete images of the micro-batch that is being filled."""


def sequence_key(sequence: int) -> str:
    """Return a key that sorts like its number."""
    return f"{sequence:012d}"
