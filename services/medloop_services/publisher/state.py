"""What the publisher remembers of a site."""

from __future__ import annotations

from typing import ClassVar

from medloop_schemas import CandidateTrained, ExampleLabelled, ReleaseChanged
from pydantic import BaseModel, ConfigDict, Field

from medloop_services.bus.processor import ServiceState
from medloop_services.publisher.audit import AuditChain


class Outcome(BaseModel):
    """Which of the two models a reader agreed with, on one image of a canary device."""

    model_config = ConfigDict(frozen=True)

    candidate_right: bool
    base_right: bool


class Trial(BaseModel):
    """A candidate that serves as a canary, and its outcomes by image."""

    model_config = ConfigDict(frozen=True)

    candidate: CandidateTrained
    devices: tuple[str, ...]
    outcomes: dict[str, Outcome] = Field(default_factory=dict)
    passed: bool = False
    """Whether it waits for a person's approval."""


class PublisherState(ServiceState):
    """A site's release, what it is judged by, and the candidate being judged."""

    entries: ClassVar[tuple[str, ...]] = ("examples", "studies")

    stable: ReleaseChanged | None = None
    previous: ReleaseChanged | None = None
    """The release before it, to go back to; None once that was done."""
    next_release: int = 0
    audit: AuditChain = AuditChain()

    examples: dict[str, ExampleLabelled] = Field(default_factory=dict)
    """Held-back examples by arrival (their number, twelve digits)."""
    studies: dict[str, int] = Field(default_factory=dict)
    """Studies that a candidate may have been trained on → number of arrival."""
    next_number: int = 0
    last_labels: dict[str, int] = Field(default_factory=dict)
    """Device → sequence of the last label taken in."""

    onset: dict[str, int] = Field(default_factory=dict)
    """Of the adaptation under way: device → sequence of its first new image; empty while there is none."""

    waiting: CandidateTrained | None = None
    """At the gate until there are enough held-back new examples."""
    trial: Trial | None = None
    judged: tuple[str, ...] = ()
    """Candidates decided on, the last ones: a repeat of one changes nothing."""
    orders: tuple[str, ...] = ()
    """Orders followed, the last ones: likewise."""
