"""Prediction made: a model version has served an image."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from medloop_schemas.event import Body, Event
from medloop_schemas.identity import Identifier, Sha256, derive_id


class ServingStage(StrEnum):
    """Why this version served this image."""

    STABLE = "stable"
    CANARY = "canary"


class BlockActivation(Body):
    """How one transformer block's activations were distributed over an image."""

    mean: float
    spread: float = Field(ge=0, description="standard deviation")
    saturated: float = Field(ge=0, le=1, description="share of int8 codes at ±127")
    dead: float = Field(ge=0, le=1, description="share of channels that are zero for every token")


class PredictionMade(Event):
    """What a model version says of an image, and what the monitoring needs to know of how it got there."""

    event_type: ClassVar[str] = "medloop.prediction.made.v1"

    image_id: Identifier
    device_id: Identifier
    site_id: Identifier
    sequence: int = Field(ge=0, description="the image's")
    model_version: Identifier
    model_digest: Sha256
    stage: ServingStage
    classes: tuple[str, ...] = Field(min_length=1, description="class names, in the order of probabilities")
    predicted_class: int = Field(ge=0)
    probabilities: tuple[float, ...] = Field(min_length=1, description="softmax of the logits; sums to 1")
    logits: tuple[float, ...] = Field(min_length=1)
    augmented_probabilities: tuple[float, ...] = Field(
        min_length=1, description="probabilities of the same image moved by one pixel"
    )
    embedding: tuple[float, ...] = Field(min_length=1, description="mean-pooled features before the head")
    blocks: tuple[BlockActivation, ...] = ()
    withheld: bool = Field(
        default=False,
        description="true while the device's sensor is taken to be broken: measured, not to be acted on",
    )

    @property
    def event_id(self) -> str:
        """Derived from the image: a repeat overwrites."""
        return derive_id("prediction", self.image_id)

    @property
    def subject(self) -> str:
        """The image."""
        return self.image_id

    @property
    def key(self) -> str:
        """The device."""
        return self.device_id
