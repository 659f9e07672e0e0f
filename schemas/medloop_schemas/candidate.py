"""Candidate trained: a better model, its makers think."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medloop_schemas.adaptation import Diagnosis, Strategy
from medloop_schemas.event import Event
from medloop_schemas.identity import Identifier, derive_id
from medloop_schemas.release import Artifact


class CandidateTrained(Event):
    """A fine-tuned model, waiting to be judged."""

    event_type: ClassVar[str] = "medloop.candidate.trained.v1"

    site_id: Identifier
    request_id: Identifier = Field(description="event id of the adaptation request it answers")
    attempt: int = Field(ge=1, description="1, then one more each time the publisher turned one down")
    version: Identifier
    base_version: Identifier
    package: Artifact
    diagnosis: Diagnosis
    strategy: Strategy
    onset: dict[Identifier, int] = Field(min_length=1, description="as requested")
    classes: tuple[str, ...] = Field(min_length=1)
    labels_used: int = Field(ge=1)
    labels_corrected: int = Field(default=0, ge=0, description="that took the place of one trained on before")
    labels_quarantined: int = Field(
        default=0, ge=0, description="of images whose training ended in no finite number and was undone"
    )
    updates: int = Field(ge=1, description="optimiser steps")
    changed_codes: float = Field(ge=0, le=1, description="share of ternary weights that differ from the base")
    loss_first: float = Field(ge=0, description="mean loss of the first updates")
    loss_last: float = Field(ge=0, description="mean loss of the last updates")
    why: tuple[str, ...] = Field(default=(), description="it was trained as it was, one sentence a reason")
    why_codes: tuple[str, ...] = Field(
        default=(),
        description="of those reasons, in their order; a code keeps its meaning, more may come",
    )
    federated: str = Field(
        default="",
        description="what the site's federation made of it, one sentence; empty where there is none",
    )

    @property
    def event_id(self) -> str:
        """Derived from the request and the attempt."""
        return derive_id("candidate", self.request_id, self.attempt)

    @property
    def subject(self) -> str:
        """The candidate's version."""
        return self.version

    @property
    def key(self) -> str:
        """The site."""
        return self.site_id
