"""What drift_detection remembers of one device."""

from __future__ import annotations

from typing import ClassVar

from medloop_schemas.identity import Identifier
from pydantic import BaseModel, ConfigDict, Field

from medloop_services.bus.processor import ServiceState
from medloop_services.drift_detection.panel import PanelState

NOTHING_YET = -1
"""Sequence before a device's first event."""


class PredictedImage(BaseModel):
    """An image that waits for its label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: int
    predicted_class: int


class WaitingLabel(BaseModel):
    """A label that waits for its image to be measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: int
    class_index: int
    class_name: str


class DetectionState(ServiceState):
    """The detectors' memory, and both halves of pairs; `predictions` and `labels` are keyed by image id."""

    entries: ClassVar[tuple[str, ...]] = ("predictions", "labels")

    device_id: Identifier
    site_id: Identifier | None = None
    model_version: Identifier | None = None
    last_image: int = NOTHING_YET
    last_label: int = NOTHING_YET
    panel: PanelState | None = None
    predictions: dict[str, PredictedImage] = Field(default_factory=dict)
    labels: dict[str, WaitingLabel] = Field(default_factory=dict)
