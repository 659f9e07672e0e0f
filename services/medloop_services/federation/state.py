"""What a federation remembers: where its round starts from, and who has sent what."""

from __future__ import annotations

from typing import ClassVar

from medloop_schemas import Artifact, RoundClosed, RoundOpened, UpdateSubmitted
from medloop_schemas.identity import Sha256
from pydantic import BaseModel, ConfigDict, Field

from medloop_services.bus.processor import ServiceState


class SharedModel(BaseModel):
    """A model's shared weights: the file they are in, and their digest."""

    model_config = ConfigDict(frozen=True)

    package: Artifact
    shared_sha256: Sha256


class FederationState(ServiceState):
    """The round under way, by site; the files themselves are in the artifact store."""

    entries: ClassVar[tuple[str, ...]] = ("updates",)

    base: SharedModel
    number: int = 1
    opened: RoundOpened | None = None
    """None until the round's first update."""
    updates: dict[str, UpdateSubmitted] = Field(default_factory=dict)
    """Site → its last update of this round."""
    refused: dict[str, str] = Field(default_factory=dict)
    """Site → why its update isn't in this round."""
    agreement: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """Site → how far it agreed with the others in its last rounds."""
    closed: RoundClosed | None = None
    """The last round's result, for sites that come late."""
    answered: tuple[str, ...] = ()
    """Updates taken in or refused, the last ones: a repeat of one changes nothing."""
