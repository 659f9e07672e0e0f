"""A dead letter: the record that can't be handled, byte for byte, with why and where from in its headers.

What no event is as large as is cut, or a cluster would not take the letter and the stream would stand still.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable

from medloop_schemas import InvalidEvent

from medloop_services.bus.outgoing import Outgoing
from medloop_services.bus.received import Received

UNHANDLED = "unhandled"
STACK_LINES = 6
HEADER_PREFIX = "medloop-"
MOST_KEY_BYTES, MOST_HEADER_BYTES, MOST_VALUE_BYTES = 1 << 10, 16 << 10, 960 << 10
MOST_REASON = 4096
"""Characters. With all four a letter is below the 1 MiB that Kafka takes by default."""


def dead_letter(received: Received, reason: InvalidEvent, service: str) -> Outgoing:
    """Return the dead letter of a record.

    Args:
        received: the record.
        reason: why it can't be handled.
        service: name and version of who says so.
    """
    value = None if received.value is None else received.value[:MOST_VALUE_BYTES]
    key = None if received.key is None else received.key[:MOST_KEY_BYTES]
    headers = received.headers if _size(received.headers) <= MOST_HEADER_BYTES else ()
    cut = _size(((received.key, received.value), *received.headers)) - _size(((key, value), *headers))
    told = {
        "error-code": reason.code,
        "error-field": reason.field,
        "error-reason": reason.reason[:MOST_REASON],
        "topic": received.topic,
        "partition": str(received.partition),
        "offset": str(received.offset),
        "service": service,
        "cut-bytes": str(cut),
    }
    added = tuple((HEADER_PREFIX + name, value.encode()) for name, value in told.items())
    return Outgoing(
        topic=f"{received.topic}.dlq",
        key=key,
        value=value,
        headers=(*headers, *added),
        partition=received.partition,
    )


def _size(pairs: Iterable[tuple[str | bytes | None, bytes | None]]) -> int:
    return sum(len(name or b"") + len(value or b"") for name, value in pairs)


def unhandled(error: Exception) -> InvalidEvent:
    """Return the reason for an error that nobody foresaw: its name, its text and the end of its stack."""
    stack = "".join(traceback.format_exception(error)).splitlines()
    return InvalidEvent(UNHANDLED, "", "\n".join([f"{type(error).__name__}: {error}", *stack[-STACK_LINES:]]))
