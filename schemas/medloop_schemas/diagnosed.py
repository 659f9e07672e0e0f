"""Drift diagnosed: what a site's alarms mean, with probabilities; repeated while open, then closed."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from medloop_schemas.adaptation import Diagnosis
from medloop_schemas.event import Event
from medloop_schemas.identity import Identifier, derive_id
from medloop_schemas.signal import AccuracyEstimate


class Scope(StrEnum):
    """How far a change reaches."""

    DEVICE = "device"
    """Some of a site's devices, most of them not."""
    SITE = "site"
    """Most of a site's devices."""
    EVERYWHERE = "everywhere"
    """Most devices of several sites: for whoever reads them all; one site's diagnosis can't know it."""


class DriftDiagnosed(Event):
    """Where the diagnosis of one incident stands: many devices' alarms, one event."""

    event_type: ClassVar[str] = "medloop.drift.diagnosed.v1"

    site_id: Identifier
    number: int = Field(ge=0, description="counts what this site has diagnosed: a later one overrules")
    incident: Identifier = Field(description="the same from the first alarm to the closing message")
    open: bool = Field(description="false once: the streams are back, or the version serves no more")
    base_version: Identifier = Field(description="the version that drifted")
    diagnosis: Diagnosis | None = Field(description="none while undecided")
    probabilities: dict[Diagnosis, float] = Field(
        min_length=1, description="of each cause, given that something has changed; they sum to 1"
    )
    scope: Scope
    onset: dict[Identifier, int] = Field(
        min_length=1, description="affected device → sequence of its first image after the estimated change"
    )
    evidence: tuple[str, ...] = Field(min_length=1, description="one sentence each")
    accuracy: AccuracyEstimate | None = Field(
        default=None, description="of the affected devices, without labels; none once labels tell"
    )
    waiting_for: str | None = Field(default=None, description="what would decide it, while undecided")

    @property
    def event_id(self) -> str:
        """Derived from the site and the message's number."""
        return derive_id("diagnosed", self.site_id, self.number)

    @property
    def subject(self) -> str:
        """The incident."""
        return self.incident

    @property
    def key(self) -> str:
        """The site."""
        return self.site_id
