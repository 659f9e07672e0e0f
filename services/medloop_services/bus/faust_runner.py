"""Runs a keyed processor on Faust: an agent, a table of states, our codec, dead letters and health port."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import faust
import structlog
from faust.types import EventT
from medloop_schemas import InvalidEvent, TransientError, topic_of

from medloop_services.bus.batch import KeyedBatch, Strikes, TooManyErrors
from medloop_services.bus.cache import cache_directory
from medloop_services.bus.faust_application import FaustApplication, credentials
from medloop_services.bus.faust_recovery import TableNotReadBack
from medloop_services.bus.faust_service import FaustService
from medloop_services.bus.health import Health
from medloop_services.bus.metrics import Metrics
from medloop_services.bus.received import Received, receive
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.state_record import Kept
from medloop_services.bus.topic_names import FAUST_TABLE, consumer_group

log = structlog.get_logger()


class FaustProcess:
    """One Faust application in the running event loop.

    The table holds each key's whole state as JSON: last values, so an input that Faust skips or repeats after
    a crash changes nothing that the next input does not put right. Outputs go through the same acknowledged
    producer as everywhere else, before the table is written.
    """

    def __init__(
        self, service: FaustService, settings: BusSettings, health: Health, metrics: Metrics, source: str
    ) -> None:
        self._processor = service.processor
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self._source = source
        self._strikes = Strikes(settings.unhandled_limit)
        self._sender = Sender(settings, health, service.name)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._input,) = self._processor.inputs
        topic = topic_of(self._input)
        # Faust makes its own folder, but not those above it: on a fresh machine there is no cache yet.
        folder = cache_directory() / "faust"
        folder.mkdir(parents=True, exist_ok=True)
        self._app = FaustApplication(
            consumer_group(service.name),
            broker=f"kafka://{settings.kafka.replace(',', ';')}",
            broker_credentials=credentials(settings),
            store="memory://",
            datadir=str(folder),
            topic_partitions=topic.partitions,
            topic_replication_factor=settings.replication,
            topic_disable_leader=True,
            # Every service has one port, with health and metrics; Faust's own would clash with its siblings'.
            web_enabled=False,
            consumer_auto_offset_reset="earliest",
            broker_session_timeout=settings.session_timeout_ms / 1000,
            broker_heartbeat_interval=settings.session_timeout_ms / 4000,
            # A restart under the same name takes its partitions back at once, without a rebalance.
            consumer_group_instance_id=settings.replica or None,
            broker_commit_interval=1.0,
            stream_wait_empty=False,
            logging_config=None,
        )
        self._table = self._app.Table(
            FAUST_TABLE, key_type=bytes, value_type=bytes, partitions=topic.partitions
        )
        stream = self._app.topic(
            topic.name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        self._app.agent(stream)(self._consume)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises:
            TableNotReadBack: the broker took too long.
            TooManyErrors: unexpected errors came one after the other.
            Exception: whatever else the agent failed with, which a restart may mend.
        """
        self._health.block("faust", "Faust is starting and reading its table back")
        await self._app.start()
        ready = asyncio.create_task(self._say_when_ready())
        stopping = asyncio.create_task(stop.wait())
        crashed = asyncio.create_task(self._app.wait_until_stopped())
        try:
            waited: set[asyncio.Future[Any]] = {stopping, crashed, self._failed}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            if crashed.done() and not stop.is_set():
                raise self._app.crash_reason or TooManyErrors("Faust stopped by itself; see its log")
        finally:
            for task in (ready, stopping, crashed):
                task.cancel()
            await self._app.stop()
            await self._sender.stop()

    async def _say_when_ready(self) -> None:
        await self._app.tables.wait_until_recovery_completed()
        self._health.clear("faust")

    async def _consume(self, stream: faust.StreamT[Any]) -> None:
        async for event in stream.events():
            try:
                await self._handle(event)
            except Exception as error:
                # Faust would start the agent anew and go on without this event; a restart reads it again.
                log.exception("an event could not be handled", processor=self._processor.name)
                if not self._failed.done():
                    self._failed.set_exception(error)
                return

    async def _handle(self, event: EventT[Any]) -> None:
        received = self._received(event)
        kept = self._stored(received)
        batch = KeyedBatch(self._processor, kept, [received], self._source, self._strikes)
        await self._decide(batch)
        await self._sender.deliver(batch.results.outputs)
        for (_, key), touched in batch.touched.items():
            self._table[key.encode()] = touched.state.model_dump_json().encode()
        self._count(batch)

    def _received(self, event: EventT[Any]) -> Received:
        message = event.message
        return receive(
            self._input,
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            key=message.key,
            value=message.value,
            headers=dict(message.headers or ()).items(),
            partitions=self._app.consumer.topic_partitions(message.topic),
        )

    def _stored(self, received: Received) -> dict[tuple[int, str], Kept[Any]]:
        if isinstance(received.content, InvalidEvent):
            return {}
        key = received.content.key
        stored = self._table.get(key.encode())
        if stored is None:
            return {}
        return {(received.partition, key): Kept(self._processor.state.model_validate_json(stored))}

    async def _decide(self, batch: KeyedBatch) -> None:
        wait = self._settings.retry_first_s
        while True:
            try:
                await asyncio.to_thread(batch.run)
            except TransientError as error:
                self._metrics.retries.labels(self._processor.name).inc()
                self._health.block("transient", f"{error}; trying again")
                await asyncio.sleep(wait)
                wait = min(2 * wait, self._settings.retry_longest_s)
            else:
                self._health.clear("transient")
                return

    def _count(self, batch: KeyedBatch) -> None:
        name, results = self._processor.name, batch.results
        for topic, count in results.handled.items():
            self._metrics.events.labels(name, topic).inc(count)
        for code, count in results.dead.items():
            self._metrics.dead_letters.labels(name, code).inc(count)
        for record in results.outputs:
            self._metrics.outputs.labels(name, record.topic).inc()


async def run_with_faust(
    service: FaustService,
    settings: BusSettings,
    health: Health,
    metrics: Metrics,
    source: str,
    *,
    stop: asyncio.Event,
) -> None:
    """Run a Faust service until `stop` is set, anew when its table is not read back; its topics exist."""
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.ERROR)
    health.clear("start")
    while not stop.is_set():
        try:
            await FaustProcess(service, settings, health, metrics, source).run(stop)
        except TableNotReadBack as error:
            metrics.table_timeouts.labels(service.name).inc()
            log.warning("beginning anew", processor=service.name, reason=str(error))
