"""Drift signalled: where every detector of one device stands. Levels, not edges: a repeat costs nothing."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from medloop_schemas.event import Body, Event
from medloop_schemas.identity import Identifier, derive_id


class Layer(StrEnum):
    """Where a statistic is taken."""

    DATA = "data"
    FEATURE = "feature"
    ACTIVATION = "activation"
    DECISION = "decision"
    LABEL = "label"


class DetectorReading(Body):
    """One detector's statistic against its threshold."""

    detector: str = Field(description="cusum, mewma, mmd, ks, prior, sensor, …")
    layer: Layer
    statistic: str = Field(description="what it watches: sharpness, embedding, error, …")
    value: float
    threshold: float
    alarmed: bool
    since_sequence: int | None = Field(default=None, description="first image of the estimated change")


class LabelEvidence(Body):
    """What late labels say of the model, over the last confirmed ones."""

    confirmed: int = Field(ge=0, description="labels in the window")
    errors: int = Field(ge=0, description="predictions in the window that the reader overruled")
    expected_error: float = Field(ge=0, le=1, description="error rate on the reference set")
    unknown: int = Field(default=0, ge=0, description="labels whose class the model does not have")
    unknown_classes: dict[int, str] = Field(default_factory=dict, description="index → name of those classes")
    latest_sequence: int | None = Field(
        default=None, description="latest image whose label has been counted; none before the first label"
    )


class AccuracyEstimate(Body):
    """How often a model is right on recent images, estimated without their labels."""

    expected: float = Field(ge=0, le=1, description="share of right answers")
    low: float = Field(ge=0, le=1, description="lower end of its 95 % interval")
    high: float = Field(ge=0, le=1, description="upper end of its 95 % interval")
    images: int = Field(ge=1, description="over how many images")


class UnlabelledImage(Body):
    """An image that has been measured and has no label yet."""

    image_id: Identifier
    sequence: int = Field(ge=0)
    predicted_class: int = Field(ge=0)


class DriftSignalled(Event):
    """Where the detectors of one device stand after its latest micro-batch or labels."""

    event_type: ClassVar[str] = "medloop.drift.signalled.v1"

    device_id: Identifier
    site_id: Identifier
    model_version: Identifier
    sequence: int = Field(ge=0, description="last image measured")
    labels_seen: int = Field(default=0, ge=0, description="labels counted since this version was released")
    images_seen: int = Field(ge=0, description="images measured since this version was released")
    readings: tuple[DetectorReading, ...]
    labels: LabelEvidence
    shifted_share: float = Field(
        ge=0,
        le=1,
        description="share of the recent images outside the reference in the data or feature layer",
    )
    accuracy: AccuracyEstimate | None = Field(
        default=None, description="of the recent images; none where the reference can't tell"
    )
    unlabelled: tuple[UnlabelledImage, ...] = Field(
        default=(),
        description="while something is alarmed: of the images that wait for their label, as many of each "
        "predicted class as there are or as the sender gives, drawn at random",
    )

    @property
    def event_id(self) -> str:
        """Derived from the device and how far it had been measured."""
        return derive_id("signal", self.device_id, self.model_version, self.sequence, self.labels_seen)

    @property
    def subject(self) -> str:
        """The device."""
        return self.device_id

    @property
    def key(self) -> str:
        """The site: one aggregator sees all of a site's devices."""
        return self.site_id
