"""What a stream is made of."""

from __future__ import annotations

from enum import StrEnum

from medloop_schemas.identity import Identifier
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ScenarioName(StrEnum):
    """What changes half way through a stream."""

    DATA_DRIFT = "data-drift"
    """The scanner: an image corruption by name and severity."""
    CONCEPT_DRIFT = "concept-drift"
    """The readers' labels: the same images are called something else."""
    NEW_CLASS = "new-class"
    """A class that was held out of everything before arrives."""
    SITE_CHANGE = "site-change"
    """The site, in a file that names sites: a real drift, nothing simulated."""


class Mix(StrEnum):
    """How often each class is shown, before and after the drift alike."""

    VALIDATION = "validation"
    """As in the validation images, by which the monitoring's reference is measured."""
    NATURAL = "natural"
    """As in the images that stream."""
    EVEN = "even"
    """Every class equally often."""


class ScenarioSettings(BaseSettings):
    """A stream's size, devices, labels and drift, read from `MEDLOOP_REPLAY_…`."""

    model_config = SettingsConfigDict(env_prefix="MEDLOOP_REPLAY_", frozen=True, extra="ignore")

    seed: int = Field(default=0, ge=0, description="of the order, the noise and the held-back labels")
    images_before: int = Field(default=600, ge=1, le=1_000_000, description="images before the drift")
    images_after: int = Field(default=2400, ge=0, le=1_000_000, description="images after the drift, at most")
    site: Identifier = Field(default="ward", description="site id of every event")
    devices: int = Field(default=4, ge=1, le=1000, description="devices that take turns")
    interval_s: float = Field(default=1.0, gt=0, le=86_400, description="event time between two images, s")
    label_delay: int = Field(
        default=32, ge=0, le=100_000, description="images of its device between an image and its label"
    )
    label_share: float = Field(default=1.0, ge=0, le=1, description="share of images that are ever labelled")
    mix: Mix = Field(default=Mix.VALIDATION, description="how often each class is shown")
    corruption: str = Field(default="scanner", description="data-drift: name of the acquisition change")
    severity: int = Field(default=3, ge=1, le=5, description="data-drift: how strong it is")
    relabelled_share: float = Field(
        default=0.3, gt=0, lt=1, description="concept-drift, two classes: share of positives called negative"
    )
    held_out: int | None = Field(
        default=None, ge=0, description="new-class: class index in the file; the usual one unless given"
    )
    new_class_share: float = Field(
        default=1 / 3, gt=0, lt=1, description="new-class: share of the images after the drift"
    )
    secret: str = Field(
        default="medloop replay", min_length=1, repr=False, description="key of the identifiers' keyed hash"
    )
