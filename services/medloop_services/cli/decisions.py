"""What has been decided so far, read from the topics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from medloop_schemas import Event

E = TypeVar("E", bound="Event")


def decisions(event_type: type[E]) -> list[E]:
    """Return the events of a topic, a repeat once, by site and number."""
    from medloop_schemas import decode, topic_of

    from medloop_services.bus.context import load_settings
    from medloop_services.bus.settings import BusSettings
    from medloop_services.replay.consumer import read_to_end

    async def collect() -> dict[str, E]:
        found: dict[str, E] = {}
        async for record in read_to_end(load_settings(BusSettings), [topic_of(event_type).name]):
            event = decode(event_type, record.value)
            found.setdefault(event.event_id, event)
        return found

    events = asyncio.run(collect()).values()
    return sorted(events, key=lambda event: (event.key, getattr(event, "number", 0)))
