"""Sends records and returns when every one is acknowledged, however long the broker is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from medloop_services.bus.connection import client_arguments
from medloop_services.bus.health import Health
from medloop_services.bus.outgoing import Outgoing
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.topics import MAX_STATE_BYTES

log = structlog.get_logger()

BATCH_BYTES = 256 * 1024


class Sender:
    """One idempotent producer: acks=all, no lingering; a failed one is replaced and everything sent again.

    Sending again may double a record on the wire; ids make that harmless, and a lost record would not be.
    """

    def __init__(self, settings: BusSettings, health: Health, name: str) -> None:
        self._settings = settings
        self._health = health
        self._cause = f"sender {name}"
        self._producer: AIOKafkaProducer | None = None

    async def deliver(self, records: Sequence[Outgoing]) -> None:
        """Send records in order; returns once the broker has all of them."""
        wait = self._settings.retry_first_s
        while records:
            try:
                await self._send(records)
                break
            except (KafkaError, OSError) as error:
                self._health.block(self._cause, f"the broker does not take records ({error}); trying again")
                log.warning(
                    "records not acknowledged, sending again", error=repr(error), records=len(records)
                )
                await self.stop()
                await asyncio.sleep(wait)
                wait = min(2 * wait, self._settings.retry_longest_s)
        self._health.clear(self._cause)

    async def stop(self) -> None:
        """Close the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _send(self, records: Sequence[Outgoing]) -> None:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **client_arguments(self._settings),
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=BATCH_BYTES,
                max_request_size=MAX_STATE_BYTES,
                request_timeout_ms=20_000,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        pending: list[asyncio.Future[Any]] = [
            await self._producer.send(
                record.topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=list(record.headers),
            )
            for record in records
        ]
        outcomes = await asyncio.gather(*pending, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
