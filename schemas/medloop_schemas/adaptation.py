"""Adaptation requested: the signals of a site mean something, and this is what to do about it."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from medloop_schemas.event import Event
from medloop_schemas.identity import Identifier, derive_id


class Diagnosis(StrEnum):
    """What has changed."""

    DATA_DRIFT = "data-drift"
    """P(x) moved: a new scanner, a new protocol."""
    CONCEPT_DRIFT = "concept-drift"
    """P(y|x) moved: a new reading policy."""
    NEW_CLASS = "new-class"
    """A class arrived that the model does not have."""
    PRIOR_SHIFT = "prior-shift"
    """P(y) moved: other patients come, each of whom looks as ever. Nothing is trained."""
    SENSOR_FAULT = "sensor-fault"
    """A device sends no pictures: black, inverted or the same again and again. Nothing is trained."""


class Strategy(StrEnum):
    """How the model is adapted."""

    SHALLOW_EWC = "shallow-ewc"
    """Deep blocks frozen; patch embedding, first blocks and head under EWC."""
    DISTIL_ALL = "distil-all"
    """All blocks, with distillation where the old policy still holds."""
    EXPAND_HEAD = "expand-head"
    """Backbone frozen; the head gains rows for the new classes."""


class AdaptationRequested(Event):
    """A site's model is to be adapted; repeated as long as the need lasts."""

    event_type: ClassVar[str] = "medloop.adaptation.requested.v1"

    site_id: Identifier
    diagnosis: Diagnosis
    strategy: Strategy
    base_version: Identifier = Field(description="the version that drifted")
    onset: dict[Identifier, int] = Field(
        min_length=1, description="device → sequence of the first image after the estimated change"
    )
    new_classes: dict[int, str] = Field(default_factory=dict, description="index → name")
    detector: str = Field(description="the detector that fired first")
    evidence: tuple[str, ...] = Field(min_length=1, description="one sentence each")

    @property
    def event_id(self) -> str:
        """Derived from what it answers: one drift of one version at one site."""
        return derive_id("adaptation", self.site_id, self.base_version, self.diagnosis)

    @property
    def subject(self) -> str:
        """The version that drifted."""
        return self.base_version

    @property
    def key(self) -> str:
        """The site."""
        return self.site_id
