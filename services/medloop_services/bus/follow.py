"""Topics that every replica reads whole: from the beginning, without a group, and on and on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from medloop_schemas import InvalidEvent, TransientError, decode, topic_of

from medloop_services.bus.connection import client_arguments
from medloop_services.bus.health import Health
from medloop_services.bus.metrics import Metrics
from medloop_services.bus.processor import Follower
from medloop_services.bus.settings import BusSettings

log = structlog.get_logger()


class Following:
    """Keeps a service's followers up to date.

    `apply` runs in a thread beside the processors' steps, an event at a time: it must replace what it changes
    in one assignment. An event that can't be followed is logged and left out, not sent away: every replica
    reads it, and one dead letter a replica would help nobody.
    """

    def __init__(
        self, followers: Sequence[Follower], settings: BusSettings, health: Health, metrics: Metrics
    ) -> None:
        self._followers: dict[str, list[Follower]] = {}
        for follower in followers:
            self._followers.setdefault(topic_of(follower.event).name, []).append(follower)
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self.caught_up = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until `stop` is set; `caught_up` is set at what was the end when this began."""
        if not self._followers:
            self.caught_up.set()
            return
        self._health.block("follow", f"reading {', '.join(self._followers)} from the beginning")
        while not stop.is_set():
            try:
                await self._follow(stop)
            except (KafkaError, OSError) as error:
                # Starting again from the beginning is harmless: a repeat changes nothing.
                self._health.block("follow", f"followed topics can't be read ({error}); trying again")
                log.warning("following interrupted", error=repr(error))
                await asyncio.sleep(self._settings.retry_first_s)

    async def _follow(self, stop: asyncio.Event) -> None:
        consumer = AIOKafkaConsumer(
            **client_arguments(self._settings), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        try:
            await consumer.start()
            places = [
                TopicPartition(topic, partition)
                for topic in self._followers
                for partition in range(topic_of(self._followers[topic][0].event).partitions)
            ]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            while not stop.is_set():
                if ends and all([await consumer.position(place) >= end for place, end in ends.items()]):
                    ends = {}
                    self.caught_up.set()
                    self._health.clear("follow")
                for records in (await consumer.getmany(timeout_ms=self._settings.batch_wait_ms)).values():
                    for record in records:
                        await self._apply(record)
        finally:
            await consumer.stop()

    async def _apply(self, record: ConsumerRecord) -> None:
        for follower in self._followers[record.topic]:
            try:
                event = decode(follower.event, record.value)
                await self._apply_patiently(follower, event)
            except InvalidEvent as error:
                place = f"{record.topic}[{record.partition}]@{record.offset}"
                log.warning("followed event left out", place=place, code=error.code, reason=error.reason)
            else:
                self._metrics.followed.labels(record.topic).inc()

    async def _apply_patiently(self, follower: Follower, event: object) -> None:
        wait = self._settings.retry_first_s
        while True:
            try:
                await asyncio.to_thread(follower.apply, event)
            except TransientError as error:
                self._health.block("follow", f"{error}; trying again")
                await asyncio.sleep(wait)
                wait = min(2 * wait, self._settings.retry_longest_s)
            else:
                if self.caught_up.is_set():
                    self._health.clear("follow")
                return
