"""Audit recorded: who decided what and why; each record carries the hash of the one before."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import orjson
from pydantic import Field

from medloop_schemas.event import Event
from medloop_schemas.identity import Identifier, Sha256, derive_id

GENESIS = "0" * 64
"""`previous_hash` of a site's first record."""


class AuditRecorded(Event):
    """One decision of the publisher."""

    event_type: ClassVar[str] = "medloop.audit.recorded.v1"

    site_id: Identifier
    number: int = Field(ge=0, description="counts the site's records")
    decision: str = Field(description="released, gate-passed, gate-failed, canary-started, promoted, …")
    version: Identifier
    actor: str = Field(description="publisher, or the person who decided")
    reason: str = Field(min_length=1)
    evidence: dict[str, float | int | str | bool | None] = Field(default_factory=dict)
    previous_hash: Sha256

    @property
    def record_hash(self) -> str:
        """SHA-256 of the record's canonical JSON (sorted keys), which contains `previous_hash`."""
        body = orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(body).hexdigest()

    @property
    def event_id(self) -> str:
        """Derived from the site and the record's number."""
        return derive_id("audit", self.site_id, self.number)

    @property
    def subject(self) -> str:
        """The version decided on."""
        return self.version

    @property
    def key(self) -> str:
        """The site."""
        return self.site_id
