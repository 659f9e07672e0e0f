"""One event from the command line to its topic."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from medloop_schemas import TransientError

if TYPE_CHECKING:
    from medloop_schemas import Event

SOURCE = "/medloop/command-line"
SEND_S = 15.0
"""Longest that a broker may take to acknowledge an event."""


def send(event: Event) -> None:
    """Send an event and wait until the broker has it.

    Raises:
        TransientError: no broker takes it in time; nothing was done.
    """
    asyncio.run(_send(event))


async def _send(event: Event) -> None:
    from medloop_services.bus.context import load_settings
    from medloop_services.bus.health import Health
    from medloop_services.bus.outgoing import outgoing
    from medloop_services.bus.sender import Sender
    from medloop_services.bus.settings import BusSettings

    settings = load_settings(BusSettings)
    sender = Sender(settings, Health(), "command line")
    try:
        async with asyncio.timeout(SEND_S):
            await sender.deliver([outgoing(event, SOURCE)])
    except TimeoutError:
        raise TransientError(
            f"no broker takes {event.event_type} at {settings.kafka}; nothing was done"
        ) from None
    finally:
        await sender.stop()
