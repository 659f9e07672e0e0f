"""The states of the partitions at hand: read back from the compacted topic, then kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from medloop_services.bus.batch import Place
from medloop_services.bus.connection import client_arguments
from medloop_services.bus.processor import KeyedProcessor
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.state_record import Kept, from_records
from medloop_services.bus.topic_names import state_topic
from medloop_services.bus.topics import MAX_STATE_BYTES

POLL_MS = 200


class StateStore:
    """What a keyed processor remembers of the keys on its partitions.

    Attributes:
        kept: state by partition and key.
    """

    def __init__(self, processor: KeyedProcessor[Any], settings: BusSettings) -> None:
        self._processor = processor
        self._settings = settings
        self._partitions: set[int] = set()
        self.kept: dict[Place, Kept[Any]] = {}

    async def restore(self, partitions: set[int]) -> None:
        """Read the states of the partitions that are not here yet.

        Raises:
            ConfigurationError: a state was written by a version that this one can't read.
            KafkaError: the broker is away; call again.
        """
        missing = partitions - self._partitions
        if not missing:
            return
        for partition, records in (await self._read(missing)).items():
            for key, kept in from_records(self._processor.state, records).items():
                self.kept[partition, key] = kept
            self._partitions.add(partition)

    def replace(self, stored: Mapping[Place, Kept[Any]]) -> None:
        """Take over states that have been written."""
        self.kept.update(stored)

    def forget(self) -> None:
        """Drop everything: the partitions are another replica's now, or are about to be read anew."""
        self._partitions.clear()
        self.kept.clear()

    async def _read(self, partitions: set[int]) -> dict[int, dict[bytes, bytes]]:
        topic = state_topic(self._processor.name)
        places = [TopicPartition(topic, partition) for partition in sorted(partitions)]
        latest: dict[int, dict[bytes, bytes]] = {partition: {} for partition in partitions}
        consumer = AIOKafkaConsumer(
            **client_arguments(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=MAX_STATE_BYTES,
        )
        await consumer.start()
        try:
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for place, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                    for record in records:
                        if record.value is None:
                            latest[place.partition].pop(record.key, None)
                        else:
                            latest[place.partition][record.key] = record.value
        finally:
            await consumer.stop()
        return latest
