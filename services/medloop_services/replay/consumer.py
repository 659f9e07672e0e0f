"""Topics read from their beginning to what is their end now, or for as long as one wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from medloop_schemas import TransientError

from medloop_services.bus.connection import client_arguments
from medloop_services.bus.settings import BusSettings
from medloop_services.replay.errors import RecordingError
from medloop_services.replay.recording import Record, RecordingWriter

POLL_MS = 500
"""How long one poll waits for records."""


async def record_topics(
    settings: BusSettings,
    topics: Collection[str],
    path: Path,
    *,
    follow: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Record topics in a Parquet file and return how many records it holds.

    Args:
        settings: how the cluster is reached.
        topics: which ones; what of them does not exist yet holds nothing.
        path: the file to write.
        follow: go on until cancelled (Ctrl-C), not only to what is the end now.
        progress: is told how many more records were read.

    Raises:
        TransientError: the broker does not answer.
        RecordingError: no topic exists, or the file can't be written.
    """
    with RecordingWriter(path) as writer:
        async for record in read(settings, topics) if follow else read_to_end(settings, topics):
            writer.write(record)
            if progress is not None:
                progress(1)
    return writer.count


async def read(settings: BusSettings, topics: Collection[str]) -> AsyncIterator[Record]:
    """Return the records of topics from their beginning, and then new ones as they come.

    Raises:
        TransientError: the broker does not answer.
        RecordingError: none of the topics exists.
    """
    async with _consumer(settings) as consumer:
        await _assign(consumer, settings, topics)
        while True:
            for record in await _poll(consumer):
                yield record


async def read_to_end(settings: BusSettings, topics: Collection[str]) -> AsyncIterator[Record]:
    """Return the records that lie in topics now.

    Raises:
        TransientError: the broker does not answer.
        RecordingError: none of the topics exists.
    """
    async with _consumer(settings) as consumer:
        partitions = await _assign(consumer, settings, topics)
        ends = await consumer.end_offsets(partitions)
        while [p for p in partitions if await consumer.position(p) < ends[p]]:
            for record in await _poll(consumer):
                if record.offset < ends[TopicPartition(record.topic, record.partition)]:
                    yield record


@asynccontextmanager
async def _consumer(settings: BusSettings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **client_arguments(settings), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        await consumer.start()
        yield consumer
    except KafkaError as error:
        raise TransientError(
            f"no broker answers at {settings.kafka} ({error}); "
            "start one with `medloop up` or set MEDLOOP_KAFKA"
        ) from None
    finally:
        await consumer.stop()


async def _assign(
    consumer: AIOKafkaConsumer, settings: BusSettings, topics: Collection[str]
) -> list[TopicPartition]:
    partitions = await _partitions(settings, topics)
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    return partitions


async def _partitions(settings: BusSettings, topics: Collection[str]) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    await admin.start()
    try:
        existing = sorted(set(await admin.list_topics()) & set(topics))
        if not existing:
            names = ", ".join(sorted(topics))
            raise RecordingError(f"none of the topics {names} exists; start `medloop up` first")
        described = await admin.describe_topics(existing)
    finally:
        await admin.close()
    return [
        TopicPartition(topic["topic"], partition["partition"])
        for topic in described
        for partition in topic["partitions"]
    ]


async def _poll(consumer: AIOKafkaConsumer) -> list[Record]:
    batches = await consumer.getmany(timeout_ms=POLL_MS)
    return [_record(record) for records in batches.values() for record in records]


def _record(record: ConsumerRecord[bytes, bytes]) -> Record:
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple((name, bytes(value or b"")) for name, value in record.headers),
    )
