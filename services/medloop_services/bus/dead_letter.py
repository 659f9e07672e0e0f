"""A dead letter: the record that can't be handled, byte for byte, with why and where from in its headers."""

from __future__ import annotations

import traceback

from medloop_schemas import InvalidEvent

from medloop_services.bus.outgoing import Outgoing
from medloop_services.bus.received import Received

UNHANDLED = "unhandled"
STACK_LINES = 6
HEADER_PREFIX = "medloop-"


def dead_letter(received: Received, reason: InvalidEvent, service: str) -> Outgoing:
    """Return the dead letter of a record.

    Args:
        received: the record.
        reason: why it can't be handled.
        service: name and version of who says so.
    """
    told = {
        "error-code": reason.code,
        "error-field": reason.field,
        "error-reason": reason.reason,
        "topic": received.topic,
        "partition": str(received.partition),
        "offset": str(received.offset),
        "service": service,
    }
    added = tuple((HEADER_PREFIX + name, value.encode()) for name, value in told.items())
    return Outgoing(
        topic=f"{received.topic}.dlq",
        key=received.key,
        value=received.value,
        headers=(*received.headers, *added),
        partition=received.partition,
    )


def unhandled(error: Exception) -> InvalidEvent:
    """Return the reason for an error that nobody foresaw: its name, its text and the end of its stack."""
    stack = "".join(traceback.format_exception(error)).splitlines()
    return InvalidEvent(UNHANDLED, "", "\n".join([f"{type(error).__name__}: {error}", *stack[-STACK_LINES:]]))
