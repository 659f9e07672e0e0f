"""What a topic holds now, read to its end; and what compaction would leave of it."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from medloop_schemas import ImageAcquired, topic_of
from medloop_services.bus.settings import BusSettings


def partitions(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(topic_of(ImageAcquired).partitions)]


async def records_of(consumer: AIOKafkaConsumer, topic: str, since_ms: int = 0) -> list[ConsumerRecord]:
    """Return a topic's records sent since a time (Unix, ms), in the order of each partition."""
    places = partitions(topic)
    consumer.assign(places)
    ends = await consumer.end_offsets(places)
    for place, first in (await consumer.offsets_for_times(dict.fromkeys(places, since_ms))).items():
        consumer.seek(place, ends[place] if first is None else first.offset)
    found: list[ConsumerRecord] = []
    while any([await consumer.position(place) < end for place, end in ends.items()]):
        for records in (await consumer.getmany(timeout_ms=100)).values():
            found += records
    return found


async def read_topic(settings: BusSettings, topic: str, since_ms: int = 0) -> list[ConsumerRecord]:
    """Return a topic's records sent since a time (Unix, ms), with a consumer of its own."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        return await records_of(consumer, topic, since_ms)
    finally:
        await consumer.stop()


def compacted(records: Iterable[ConsumerRecord]) -> dict[bytes, bytes]:
    """Return the last value of each key; one without a value has been deleted."""
    values: dict[bytes, bytes] = {}
    for record in records:
        if record.value is None:
            values.pop(record.key, None)
        else:
            values[record.key] = record.value
    return values
