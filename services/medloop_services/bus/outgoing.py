"""What is to be sent: an event's record, a state's, or a dead letter."""

from __future__ import annotations

from dataclasses import dataclass

from medloop_schemas import Event, encode


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record that has not been sent.

    Attributes:
        partition: None to let the key choose, as Kafka's own clients do.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


def outgoing(event: Event, source: str) -> Outgoing:
    """Return an event's record; `source` is the CloudEvents attribute."""
    message = encode(event, source)
    return Outgoing(message.topic, message.key, message.value, message.headers)
