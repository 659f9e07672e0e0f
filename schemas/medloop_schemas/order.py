"""Release ordered: a person has decided about a version."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from medloop_schemas.event import Event
from medloop_schemas.identity import Identifier, derive_id


class Order(StrEnum):
    """What a person wants done."""

    APPROVE = "approve"
    """The version has been tried and shall serve every device."""
    REJECT = "reject"
    """The version shall no longer be judged or tried."""
    ROLLBACK = "rollback"
    """The version serves every device; the one before it shall serve again."""


class ReleaseOrdered(Event):
    """A person's decision; the publisher follows it, or sends it to the dead letters with the reason."""

    event_type: ClassVar[str] = "medloop.release.ordered.v1"

    site_id: Identifier
    order_id: Identifier = Field(description="the sender's own, such as a UUID; the same when sent again")
    order: Order
    version: Identifier = Field(
        description="what the order is about, so that a late one does nothing to another"
    )
    person: str = Field(min_length=1, max_length=128, description="who decided; the audit record's actor")
    reason: str = Field(min_length=1, max_length=1000)

    @property
    def event_id(self) -> str:
        """Derived from the site and the sender's own id."""
        return derive_id("order", self.site_id, self.order_id)

    @property
    def subject(self) -> str:
        """The version."""
        return self.version

    @property
    def key(self) -> str:
        """The site."""
        return self.site_id
