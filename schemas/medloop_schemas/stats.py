"""Stats measured: what a micro-batch of one device's images looked like, in all four layers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medloop_schemas.event import Body, Event
from medloop_schemas.identity import Identifier, derive_id


class ImageStatistics(Body):
    """One image's values, each named by the statistic."""

    image_id: Identifier
    sequence: int = Field(ge=0)
    predicted_class: int = Field(ge=0)
    data: dict[str, float] = Field(description="intensity, contrast, noise, sharpness, blockiness, …")
    decision: dict[str, float] = Field(description="entropy, margin, energy, inconsistency, …")
    activation: dict[str, float] = Field(description="per block: block0.mean, block0.saturated, …")
    embedding: tuple[float, ...] = Field(min_length=1)
    probabilities: tuple[float, ...] = Field(
        default=(), description="the model's answer, a value a class; empty from before it was sent"
    )


class StatsMeasured(Event):
    """A micro-batch of consecutive images of one device, all served by the same model version."""

    event_type: ClassVar[str] = "medloop.stats.measured.v1"

    device_id: Identifier
    site_id: Identifier
    model_version: Identifier
    images: tuple[ImageStatistics, ...] = Field(min_length=1)

    @property
    def first_sequence(self) -> int:
        """Sequence number of the first image."""
        return self.images[0].sequence

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last image."""
        return self.images[-1].sequence

    @property
    def event_id(self) -> str:
        """Derived from the device and the images covered."""
        return derive_id("stats", self.device_id, self.first_sequence, self.last_sequence)

    @property
    def subject(self) -> str:
        """The device."""
        return self.device_id

    @property
    def key(self) -> str:
        """The device."""
        return self.device_id
