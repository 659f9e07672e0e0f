"""What the online learner remembers: a device's images and labels, a site's examples and adaptation."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from medloop_schemas import (
    AdaptationRequested,
    Artifact,
    ExampleLabelled,
    Frame,
    LabelConfirmed,
    ReleaseChanged,
    RoundClosed,
    UpdateSubmitted,
)
from pydantic import BaseModel, ConfigDict, Field

from medloop_services.bus.processor import ServiceState


class PendingImage(BaseModel):
    """An image of which the frame, the prediction or the label is still to come."""

    model_config = ConfigDict(frozen=True)

    sequence: int
    study_id: str | None = None
    acquired: datetime | None = None
    frame: Frame | None = None
    predicted_class: int | None = None
    model_version: str | None = None
    revision: int = 0
    """Of the last label an example was made with; 0 before the first."""


class PairingState(ServiceState):
    """A device's images by id, and the labels that wait for them by sequence number (twelve digits)."""

    entries: ClassVar[tuple[str, ...]] = ("images", "labels")

    images: dict[str, PendingImage] = Field(default_factory=dict)
    labels: dict[str, LabelConfirmed] = Field(default_factory=dict)
    last_image: int = -1
    last_image_time: datetime | None = None
    last_prediction: int = -1
    last_label: int = -1
    unmatched: int = 0
    """Labels given up: their image was never served, or was let go before they came."""


class Phase(StrEnum):
    """Where an adaptation stands."""

    TRAINING = "training"
    WAITING = "waiting"
    """An update is with the site's federation."""
    JUDGED = "judged"
    """A candidate is with the publisher."""


class Adaptation(BaseModel):
    """The adaptation under way at a site.

    Attributes:
        request: what is asked for.
        base: the release it starts from.
        fisher: Fisher information that was chosen when it opened; None for what the base's package holds.
        opened_at: log number of the first example that arrived after the request.
        attempt: 1, then one more each time the publisher turned a candidate down.
        phase: training, or waiting for the federation's round, or for the publisher's judgement.
        trained: new examples that have been trained on.
        fixed_below: examples with a lower log number have been used and may no longer be corrected.
        losses: of each update that took a step.
        steps: optimiser steps so far.
        changed_codes: share of ternary weights that differ from the base's.
        corrected: labels that took the place of another one.
        quarantined: new examples whose training ended in no finite number and was undone.
        candidate: version of the last candidate.
        update: the last one submitted to the site's federation.
        waits_until: log number at which its round is waited for no longer.
    """

    model_config = ConfigDict(frozen=True)

    request: AdaptationRequested
    base: ReleaseChanged
    fisher: Artifact | None = None
    opened_at: int
    fixed_below: int
    attempt: int = 1
    phase: Phase = Phase.TRAINING
    trained: int = 0
    losses: tuple[float, ...] = ()
    steps: int = 0
    changed_codes: float = 0.0
    corrected: int = 0
    quarantined: int = 0
    candidate: str | None = None
    update: UpdateSubmitted | None = None
    waits_until: int = 0

    @property
    def labels_used(self) -> int:
        """New examples that the model was changed by."""
        return self.trained - self.quarantined


class LearningState(ServiceState):
    """A site's last examples by arrival (their number, twelve digits), and the adaptation under way."""

    entries: ClassVar[tuple[str, ...]] = ("examples",)

    examples: dict[str, ExampleLabelled] = Field(default_factory=dict)
    next_number: int = 0
    last_labels: dict[str, int] = Field(default_factory=dict)
    """Device → sequence of the last label taken in."""
    stable: ReleaseChanged | None = None
    release_number: int = -1
    adaptation: Adaptation | None = None
    round: RoundClosed | None = None
    """The last one of the site's federation that it was told of."""
    onsets: tuple[dict[str, int], ...] = ()
    """Of settled requests, the last ones in order: device → first image after the change."""
    answered: tuple[str, ...] = ()
    """Requests that are settled, the last ones: a repeat of one changes nothing."""
