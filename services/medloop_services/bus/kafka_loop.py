"""The one Kafka loop: fetch → decide → send outputs → send states → commit. At least once, in order.

Nothing is committed before everything that follows from it is acknowledged, and a state is acknowledged
before the commit, with the offsets that are in it. So after any crash a batch is either done, or is fetched
again; what of it is already in a state is then skipped, and the rest gives the same outputs under the same
ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, KafkaError
from medloop_schemas import TransientError, topic_of

from medloop_services.bus.batch import KeyedBatch, MapBatch, Strikes
from medloop_services.bus.connection import client_arguments
from medloop_services.bus.health import Health
from medloop_services.bus.metrics import Metrics
from medloop_services.bus.outgoing import Outgoing
from medloop_services.bus.processor import KeyedProcessor, Processor
from medloop_services.bus.received import Received, in_order, receive
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.state_store import StateStore
from medloop_services.bus.topic_names import consumer_group

log = structlog.get_logger()

LONGEST_BATCH_MS = 30 * 60 * 1000
REBALANCE_TIMEOUT_MS = 60_000
GATHERED_BYTES = 256 * 1024
"""So many are handed over at once, however short they were gathered."""

Fetched = Mapping[TopicPartition, Sequence[ConsumerRecord]]


class ProcessorLoop(ConsumerRebalanceListener):  # type: ignore[misc]
    """Runs one processor until told to stop.

    Args:
        processor: what decides.
        settings: how to reach the broker and how patient to be.
        health: told what holds the work up.
        metrics: counts.
        source: CloudEvents source: `/medloop/{service}/{version}`.
    """

    def __init__(
        self, processor: Processor, settings: BusSettings, health: Health, metrics: Metrics, source: str
    ) -> None:
        self._processor = processor
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self._source = source
        self._cause = f"processor {processor.name}"
        self._types = {topic_of(event).name: event for event in processor.inputs}
        self._sender = Sender(settings, health, processor.name)
        self._strikes = Strikes(settings.unhandled_limit)
        self._store = StateStore(processor, settings) if isinstance(processor, KeyedProcessor) else None
        # Held while a batch is in work, so that partitions are given up between batches only. Never held
        # while fetching: during a rebalance a fetch waits for the partitions that come after it, and who
        # gives up the old ones waits for this lock.
        self._busy = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        """Process events until `stop` is set; the batch in work is finished and committed first.

        Raises:
            TooManyErrors: unexpected errors came one after the other.
            ConfigurationError: a stored state can't be read.
        """
        self._health.block(self._cause, "joining its consumer group")
        consumer = await self._join(stop)
        if consumer is None:
            return
        try:
            while not stop.is_set():
                fetched = await self._fetched(consumer)
                # Free at this moment, so that no rebalance comes between: a fetch returns nothing once one
                # has begun, and no one else holds the lock across an await.
                async with self._busy:
                    if fetched:
                        await self._handle(consumer, fetched, stop)
        finally:
            await consumer.stop()
            await self._sender.stop()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Wait for the batch in work, then forget the states: another replica may have them next."""
        async with self._busy:
            if self._store is not None:
                self._store.forget()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Say that work can begin; states are read back before a partition's first event."""
        log.info("partitions assigned", processor=self._processor.name, partitions=sorted(map(str, assigned)))
        self._health.clear(self._cause)

    async def _join(self, stop: asyncio.Event) -> AIOKafkaConsumer | None:
        while not stop.is_set():
            consumer = AIOKafkaConsumer(
                **client_arguments(self._settings),
                group_id=consumer_group(self._processor.name),
                group_instance_id=self._settings.replica or None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                # Topics read together are split alike: a key's events meet in one replica.
                partition_assignment_strategy=(RangePartitionAssignor,),
                session_timeout_ms=self._settings.session_timeout_ms,
                heartbeat_interval_ms=self._settings.session_timeout_ms // 4,
                rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
                max_poll_interval_ms=LONGEST_BATCH_MS,
                **self._gathering(),
            )
            consumer.subscribe(list(self._types), listener=self)
            try:
                await consumer.start()
            except (KafkaError, OSError) as error:
                await consumer.stop()
                await self._pause(f"the broker does not answer ({error})", self._settings.retry_longest_s)
            else:
                return consumer
        return None

    def _gathering(self) -> dict[str, int]:
        """Where there is a state, no one waits for the output, and each batch costs a state and a commit."""
        if self._store is None:
            return {}
        return {"fetch_min_bytes": GATHERED_BYTES, "fetch_max_wait_ms": self._settings.gather_ms}

    async def _fetched(self, consumer: AIOKafkaConsumer) -> Fetched:
        try:
            fetched: Fetched = await consumer.getmany(
                timeout_ms=self._settings.batch_wait_ms, max_records=self._settings.batch_events
            )
        except (KafkaError, OSError) as error:
            await self._pause(f"nothing can be fetched ({error})", self._settings.retry_first_s)
            self._health.clear(self._cause)
            return {}
        return fetched

    async def _handle(self, consumer: AIOKafkaConsumer, fetched: Fetched, stop: asyncio.Event) -> None:
        began = time.perf_counter()
        if not await self._restored({place.partition for place in fetched}, stop):
            return
        batch = self._batch(self._received(consumer, fetched))
        if not await self._decided(batch, stop):
            return
        await self._sender.deliver(batch.results.outputs)
        if isinstance(batch, KeyedBatch) and self._store is not None:
            records, stored = batch.states()
            await self._sender.deliver(records)
            self._store.replace(stored)
        await self._commit(consumer, {place: records[-1].offset + 1 for place, records in fetched.items()})
        self._count(batch, time.perf_counter() - began)

    def _received(self, consumer: AIOKafkaConsumer, fetched: Fetched) -> list[Received]:
        received: list[Received] = []
        counts = {topic: len(consumer.partitions_for_topic(topic) or ()) or None for topic in self._types}
        for partition in sorted({place.partition for place in fetched}):
            inputs = [
                [
                    self._decoded(record, counts[topic])
                    for record in fetched.get(TopicPartition(topic, partition), ())
                ]
                for topic in self._types
            ]
            received += in_order(inputs)
        return received

    def _decoded(self, record: ConsumerRecord, partitions: int | None) -> Received:
        return receive(
            self._types[record.topic],
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            headers=record.headers,
            partitions=partitions,
        )

    def _batch(self, received: Sequence[Received]) -> KeyedBatch | MapBatch:
        if isinstance(self._processor, KeyedProcessor):
            kept = self._store.kept if self._store is not None else {}
            return KeyedBatch(self._processor, kept, received, self._source, self._strikes)
        return MapBatch(self._processor, received, self._source, self._strikes)

    async def _restored(self, partitions: set[int], stop: asyncio.Event) -> bool:
        while self._store is not None and not stop.is_set():
            try:
                await self._store.restore(partitions)
                break
            except (KafkaError, OSError) as error:
                await self._pause(f"states can't be read back ({error})", self._settings.retry_longest_s)
        self._health.clear(self._cause)
        return not stop.is_set() or self._store is None

    async def _decided(self, batch: KeyedBatch | MapBatch, stop: asyncio.Event) -> bool:
        """Run a batch beside the event loop, so that heartbeats go on; False if stopped while waiting."""
        wait = self._settings.retry_first_s
        while True:
            try:
                await asyncio.to_thread(batch.run)
            except TransientError as error:
                self._metrics.retries.labels(self._processor.name).inc()
                await self._pause(str(error), wait)
                wait = min(2 * wait, self._settings.retry_longest_s)
                if stop.is_set():
                    return False
            else:
                self._health.clear(self._cause)
                return True

    async def _commit(self, consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> None:
        while True:
            try:
                await consumer.commit(dict(offsets))
            except CommitFailedError as error:
                # The group has moved on; whoever has the partitions now skips what is in the states.
                log.warning("commit refused", processor=self._processor.name, error=str(error))
                return
            except (KafkaError, OSError) as error:
                await self._pause(f"offsets can't be committed ({error})", self._settings.retry_first_s)
            else:
                self._health.clear(self._cause)
                return

    async def _pause(self, reason: str, seconds: float) -> None:
        self._health.block(self._cause, f"{reason}; trying again")
        log.warning("waiting", processor=self._processor.name, reason=reason)
        await asyncio.sleep(seconds)

    def _count(self, batch: KeyedBatch | MapBatch, seconds: float) -> None:
        name, results = self._processor.name, batch.results
        for counter, counts in (
            (self._metrics.events, results.handled),
            (self._metrics.repeats, results.repeats),
            (self._metrics.dead_letters, results.dead),
            (self._metrics.outputs, _topics(results.outputs)),
        ):
            for label, count in counts.items():
                counter.labels(name, label).inc(count)
        self._metrics.batch_seconds.labels(name).observe(seconds)


def _topics(records: Iterable[Outgoing]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        counts[record.topic] = counts.get(record.topic, 0) + 1
    return counts
