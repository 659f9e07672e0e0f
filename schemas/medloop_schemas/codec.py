"""Events to Kafka records and back: CloudEvents 1.0 attributes as headers (binary mode), JSON as value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import orjson
from pydantic import ValidationError

from medloop_schemas.errors import InvalidEvent
from medloop_schemas.event import Event
from medloop_schemas.topics import topic_of

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/json"

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Message:
    """A Kafka record that has not been sent."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def encode(event: Event, source: str) -> Message:
    """Return the record that carries an event.

    Args:
        event: what happened.
        source: CloudEvents `source`: the service and its version, such as `/medloop/inference/0.1.0`.
    """
    attributes = {
        "ce_specversion": SPEC_VERSION,
        "ce_id": event.event_id,
        "ce_source": source,
        "ce_type": event.event_type,
        "ce_time": event.time.isoformat(),
        "ce_subject": event.subject,
        "content-type": CONTENT_TYPE,
    }
    return Message(
        topic=topic_of(type(event)).name,
        key=event.key.encode(),
        value=orjson.dumps(event.model_dump(mode="json")),
        headers=tuple((name, value.encode()) for name, value in attributes.items()),
    )


def decode(event_type: type[E], value: bytes | None) -> E:
    """Return the event that a record's value holds; the topic says which type to expect.

    Raises:
        InvalidEvent: not JSON, or a field is missing or wrong; names the first such field.
    """
    if value is None:
        raise InvalidEvent("empty", "", "the record has no value")
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent("json", "", f"not JSON: {error}") from None
    try:
        # Strictly, as the published schema has it: "12" is no integer, and would become one of any size.
        return event_type.model_validate_json(orjson.dumps(fields), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise InvalidEvent(first["type"], path, first["msg"]) from None
