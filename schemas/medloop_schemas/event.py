"""The base of every event: frozen, tolerant of fields it does not know, identified by its causes."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict


class Body(BaseModel):
    """A frozen part of an event. Unknown fields are ignored, so that a newer producer breaks no consumer."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Event(Body):
    """One thing that happened. Subclasses say what identifies it and which key orders it."""

    event_type: ClassVar[str]
    """CloudEvents `type`, ending in the major version: `medloop.prediction.made.v1`."""

    time: AwareDatetime
    """Event time: when the cause happened, never when it was processed."""

    @property
    def event_id(self) -> str:
        """CloudEvents `id`, derived from the event's causes."""
        raise TypeError(f"{type(self).__name__} does not define event_id")

    @property
    def subject(self) -> str:
        """CloudEvents `subject`: what the event is about, such as an image or a model version."""
        raise TypeError(f"{type(self).__name__} does not define subject")

    @property
    def key(self) -> str:
        """Kafka record key: events with the same key keep their order."""
        raise TypeError(f"{type(self).__name__} does not define key")


def latest(*times: datetime) -> datetime:
    """Return the latest of some event times: the time of an event with several causes."""
    return max(times)
