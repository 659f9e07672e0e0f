"""Federation: sites' updates of one model, gathered in rounds; no image leaves a site."""

from __future__ import annotations

from typing import Annotated, ClassVar

import orjson
from pydantic import AwareDatetime, Field, StringConstraints

from medloop_schemas.event import Event
from medloop_schemas.identity import Identifier, Sha256, derive_id
from medloop_schemas.release import Artifact

Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
"""Ed25519 signature (RFC 8032), lower-case hexadecimal."""


class UpdateSubmitted(Event):
    """A site has trained: how its shared weights moved, signed; its images and its norms stay at home."""

    event_type: ClassVar[str] = "medloop.update.submitted.v1"

    federation: Identifier = Field(description="the sites that learn together")
    site_id: Identifier
    request_id: Identifier = Field(description="event id of the adaptation request that made the site train")
    attempt: int = Field(
        ge=1, description="as a candidate's: one more each time the publisher turned one down"
    )
    base_version: Identifier = Field(description="the site's version that was trained")
    base_sha256: Sha256 = Field(description="digest of that version's shared weights: the round's base")
    samples: int = Field(ge=1, description="labelled images behind it")
    payload: Artifact = Field(description="the compressed update")
    signature: Signature = Field(description="of `signed_content` by the site's key")

    @property
    def signed_content(self) -> bytes:
        """Canonical JSON of the fields that v1 started with; one that is added later is not signed."""
        body = {
            "attempt": self.attempt,
            "base_sha256": self.base_sha256,
            "base_version": self.base_version,
            "federation": self.federation,
            "payload_sha256": self.payload.sha256,
            "payload_size": self.payload.size,
            "request_id": self.request_id,
            "samples": self.samples,
            "site_id": self.site_id,
            "time": self.time.isoformat(),
        }
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)

    @property
    def event_id(self) -> str:
        """Derived from the site, the request and the attempt: a site answers each once."""
        return derive_id("update", self.federation, self.site_id, self.request_id, self.attempt)

    @property
    def subject(self) -> str:
        """The site."""
        return self.site_id

    @property
    def key(self) -> str:
        """The federation: one merger sees all updates of a round."""
        return self.federation


class RoundOpened(Event):
    """A round's first update has come; the others have until `closes_at`."""

    event_type: ClassVar[str] = "medloop.round.opened.v1"

    federation: Identifier
    number: int = Field(ge=1, description="counts the federation's rounds")
    base_sha256: Sha256 = Field(description="shared weights that updates have to start from")
    quorum: int = Field(ge=1, description="sites whose updates close the round at once")
    closes_at: AwareDatetime = Field(description="event time after which fewer are enough")

    @property
    def event_id(self) -> str:
        """Derived from the federation and the round."""
        return derive_id("round-opened", self.federation, self.number)

    @property
    def subject(self) -> str:
        """The federation."""
        return self.federation

    @property
    def key(self) -> str:
        """The federation."""
        return self.federation


class RoundClosed(Event):
    """A round is merged: for each site, which makes a candidate of it with its own norms and scales."""

    event_type: ClassVar[str] = "medloop.round.closed.v1"

    federation: Identifier
    number: int = Field(ge=1)
    site_id: Identifier = Field(description="whom this is for")
    base_sha256: Sha256 = Field(description="shared weights that the round started from")
    merged: Artifact = Field(description="package with the shared weights and their Fisher information")
    merged_sha256: Sha256 = Field(description="digest of the merged shared weights: the next round's base")
    aggregator: str = Field(min_length=1, description="weighted-mean, trimmed-mean or soft-vote")
    samples: dict[Identifier, int] = Field(
        min_length=1, description="site → labelled images behind its update"
    )
    clipped: tuple[Identifier, ...] = Field(default=(), description="sites whose update was too long")
    agreement: dict[Identifier, float] = Field(
        default_factory=dict, description="site → median cosine of its update with the others'"
    )
    refused: dict[Identifier, str] = Field(default_factory=dict, description="site → why it wasn't merged")
    reason: str = Field(min_length=1, description="why the round was closed, one sentence")

    @property
    def event_id(self) -> str:
        """Derived from the federation, the round and the site."""
        return derive_id("round-closed", self.federation, self.number, self.site_id)

    @property
    def subject(self) -> str:
        """The federation."""
        return self.federation

    @property
    def key(self) -> str:
        """The site: its learner takes it up beside the site's other events."""
        return self.site_id
