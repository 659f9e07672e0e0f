"""Sends a service its inputs while it is killed, and reads what it has brought about from the topics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorError
from aiokafka.structs import OffsetAndMetadata
from killable_service import RELEASES, Killable
from medloop_schemas import Event, decode, topic_of
from medloop_services.bus.health import Health
from medloop_services.bus.outgoing import outgoing
from medloop_services.bus.processor import KeyedProcessor, Service
from medloop_services.bus.sender import Sender
from medloop_services.bus.state_record import from_records
from medloop_services.bus.topic_names import consumer_group, state_topic
from recorded_loop import Identity, identity, stretches
from topic_reader import compacted, partitions, records_of

CHUNK = 20
RATE = 1_000
PATIENCE_S = 180
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.02, 0.1


@dataclass(frozen=True)
class Player:
    """Sends a service its inputs and sees how far it has come."""

    killable: Killable
    service: Service
    sender: Sender
    admin: AIOKafkaAdminClient
    reader: AIOKafkaConsumer
    since_ms: int
    coordinators: dict[str, int] = field(default_factory=dict)

    async def play(self, events: Sequence[Event], kill_at: int) -> None:
        """Send events; kill the service, beside the sending, when so many have been sent."""
        sent = 0
        killing: list[asyncio.Task[None]] = []
        for stretch in stretches(events, self.service):
            for first in range(0, len(stretch), CHUNK):
                chunk = stretch[first : first + CHUNK]
                began = time.monotonic()
                if sent <= kill_at < sent + len(chunk):
                    killing.append(asyncio.create_task(asyncio.to_thread(self.killable.kill)))
                await self.sender.deliver([outgoing(event, "/recording") for event in chunk])
                if sent == 0:  # it is to be killed at work, not while it starts
                    await self.all_handled()
                sent += len(chunk)
                await asyncio.sleep(max(0.0, CHUNK / RATE - (time.monotonic() - began)))
            await self.all_handled()
        await asyncio.gather(*killing)
        await self.all_handled()

    async def all_handled(self) -> None:
        """Wait until everything sent so far has been committed and, by a follower, every release read."""
        deadline = time.monotonic() + PATIENCE_S
        wait_s = SHORTEST_WAIT_S
        while not (await self._committed() and await self._followed()):
            assert time.monotonic() < deadline, self.killable.log.read_text()[-4000:]
            await asyncio.sleep(
                wait_s
            )  # longer and longer: asking takes the cores that the service restarts on
            wait_s = min(1.5 * wait_s, LONGEST_WAIT_S)

    async def _committed(self) -> bool:
        for processor in self.service.processors:
            places = [place for kind in processor.inputs for place in partitions(topic_of(kind).name)]
            ends = await self.reader.end_offsets(places)
            try:
                done = await self._offsets_of(consumer_group(processor.name))
            except (GroupCoordinatorNotAvailableError, NotCoordinatorError):
                return False  # a new broker's first group has none for a moment
            if any(end and (place not in done or done[place].offset < end) for place, end in ends.items()):
                return False
        return True

    async def _offsets_of(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        if group not in self.coordinators:
            self.coordinators[group] = await self.admin.find_coordinator(group)
        offsets: dict[TopicPartition, OffsetAndMetadata] = await self.admin.list_consumer_group_offsets(
            group, group_coordinator_id=self.coordinators[group]
        )
        return offsets

    async def _followed(self) -> bool:
        if not self.service.followers:
            return True
        ends = await self.reader.end_offsets(partitions(RELEASES))
        released: int = sum(ends.values())
        return await asyncio.to_thread(self.killable.followed) >= released

    async def outputs(self, site: str, given: set[Identity]) -> list[tuple[Identity, str]]:
        """Return every record of an output of a site, repeats and all."""
        kinds = {kind for processor in self.service.processors for kind in processor.outputs}
        events = [
            decode(kind, record.value)
            for kind in kinds
            for record in await records_of(self.reader, topic_of(kind).name, self.since_ms)
            if record.key.decode().startswith(site)
        ]
        return [
            (identity(event), event.model_dump_json()) for event in events if identity(event) not in given
        ]

    async def states(self, site: str) -> dict[tuple[str, str], str]:
        """Return the states of a site and its devices, as a restarted service would read them back.

        By processor and key, as JSON; Faust's table is not a state topic.
        """
        found: dict[tuple[str, str], str] = {}
        for processor in self.service.processors:
            if not isinstance(processor, KeyedProcessor) or processor.name == "event_aggregation":
                continue
            latest = compacted(await records_of(self.reader, state_topic(processor.name), self.since_ms))
            for key, kept in from_records(processor.state, latest).items():
                if key.startswith(site):
                    found[processor.name, key] = kept.state.model_dump_json()
        return found


@asynccontextmanager
async def player(killable: Killable, service: Service) -> AsyncIterator[Player]:
    sender = Sender(killable.settings, Health(), "recording")
    admin = AIOKafkaAdminClient(bootstrap_servers=killable.settings.kafka)
    # A topic's end is waited at for this long before the next topic can be read.
    reader = AIOKafkaConsumer(
        bootstrap_servers=killable.settings.kafka, enable_auto_commit=False, fetch_max_wait_ms=20
    )
    await admin.start()
    await reader.start()
    try:
        yield Player(killable, service, sender, admin, reader, since_ms=int(time.time() * 1000))
    finally:
        await sender.stop()
        await admin.close()
        await reader.stop()
