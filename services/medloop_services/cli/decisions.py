"""What has been decided so far, read from the topics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from medloop_services.cli.options import tell

if TYPE_CHECKING:
    from medloop_schemas import Event

E = TypeVar("E", bound="Event")


def decisions(event_type: type[E]) -> list[E]:
    """Return the events of a topic, by site and number; what was sent twice once, unless it was changed."""
    from medloop_schemas import InvalidEvent, decode, topic_of

    from medloop_services.bus.context import load_settings
    from medloop_services.bus.settings import BusSettings
    from medloop_services.replay.consumer import read_to_end

    async def collect() -> list[E]:
        found: dict[str, list[E]] = {}
        async for record in read_to_end(load_settings(BusSettings), [topic_of(event_type).name]):
            try:
                event = decode(event_type, record.value)
            except InvalidEvent as error:
                tell(f"{record.topic}:{record.partition}:{record.offset} is left out: {error}")
                continue
            same_id = found.setdefault(event.event_id, [])
            if event not in same_id:
                same_id.append(event)
        return [event for events in found.values() for event in events]

    return sorted(asyncio.run(collect()), key=lambda event: (event.key, getattr(event, "number", 0)))
