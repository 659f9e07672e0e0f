"""Label requested: a diagnosis is undecided, and this image's label would help to decide it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medloop_schemas.event import Event
from medloop_schemas.identity import Identifier, derive_id


class LabelRequested(Event):
    """An image for a reader to label: drawn at random among those like it, so that what it tells is unbiased.

    The strata are the predicted classes, before and after the estimated change. Within one every image
    without a label was as likely to be drawn, so that the share of errors among the drawn estimates the
    stratum's error rate; over several strata it has to be weighted by their sizes.
    """

    event_type: ClassVar[str] = "medloop.label.requested.v1"

    image_id: Identifier
    device_id: Identifier
    site_id: Identifier
    sequence: int = Field(ge=0, description="the image's")
    incident: Identifier = Field(description="the diagnosis that it is for")
    predicted_class: int = Field(ge=0, description="stratum: the model's answer")
    after_onset: bool = Field(description="stratum: whether it was taken after the estimated change")
    reason: str = Field(min_length=1, description="one sentence for the reader")

    @property
    def event_id(self) -> str:
        """Derived from the image and what it is asked for."""
        return derive_id("label-request", self.incident, self.image_id)

    @property
    def subject(self) -> str:
        """The image."""
        return self.image_id

    @property
    def key(self) -> str:
        """The device."""
        return self.device_id
