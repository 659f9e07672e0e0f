"""Release changed: which model version may serve which devices."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from medloop_schemas.event import Body, Event
from medloop_schemas.identity import Identifier, Sha256, derive_id


class Artifact(Body):
    """A file, by where it is and by what it must hash to."""

    url: str = Field(min_length=1, description="fsspec URL")
    sha256: Sha256
    size: int = Field(ge=1, description="bytes")


class ReleaseStage(StrEnum):
    """How far a version has come."""

    CANARY = "canary"
    """Serves the named devices; the stable version serves the others."""
    STABLE = "stable"
    """Serves every device of the site."""
    REJECTED = "rejected"
    """Failed the gate; has never served."""
    ROLLED_BACK = "rolled-back"
    """Failed as a canary; the stable version serves again."""


class ReleaseChanged(Event):
    """The publisher has decided; each site's decisions are numbered."""

    event_type: ClassVar[str] = "medloop.release.changed.v1"

    site_id: Identifier
    number: int = Field(ge=0, description="counts the site's release decisions")
    version: Identifier
    stage: ReleaseStage
    package: Artifact
    teacher: Artifact | None = Field(default=None, description="full-precision model to distil from")
    classes: tuple[str, ...] = Field(min_length=1)
    devices: tuple[Identifier, ...] = Field(default=(), description="canary devices; empty for the others")
    previous_version: Identifier | None = None
    request_id: Identifier | None = Field(default=None, description="the adaptation it answers, if any")
    reason: str = Field(min_length=1)

    @property
    def event_id(self) -> str:
        """Derived from the site and the decision's number."""
        return derive_id("release", self.site_id, self.number)

    @property
    def subject(self) -> str:
        """The version."""
        return self.version

    @property
    def key(self) -> str:
        """The site."""
        return self.site_id
