"""Makes every topic exist, with the right partitions, before anything reads or writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from medloop_schemas import TOPICS, ConfigurationError, Event, topic_of

from medloop_services.bus.connection import client_arguments
from medloop_services.bus.processor import KeyedProcessor, Processor
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.topic_names import changelog_topic, state_topic

MAX_STATE_BYTES = 16 * 1024 * 1024
SEGMENT_BYTES = 32 * 1024 * 1024
VISIBLE_TRIES = 100
VISIBLE_WAIT_S = 0.1


def registry_topics(replication: int = 1) -> list[NewTopic]:
    """Return every registered topic and its dead letters, as they are to be created."""
    wanted = []
    for topic in TOPICS:
        kept = {"retention.ms": str(topic.retention_ms)}
        wanted.append(NewTopic(topic.name, topic.partitions, replication, topic_configs=kept))
        wanted.append(NewTopic(topic.dead_letters, topic.partitions, replication, topic_configs=kept))
    return wanted


def state_topics(processors: Iterable[Processor], replication: int = 1) -> list[NewTopic]:
    """Return the state topics of the keyed processors: co-partitioned with their inputs, compacted."""
    more = {
        "max.message.bytes": str(MAX_STATE_BYTES),
        # The active segment is never compacted; small ones keep a restore short.
        "segment.bytes": str(SEGMENT_BYTES),
    }
    return [_compacted(state_topic(each.name), each, replication, more) for each in _keyed(processors)]


def changelog_topics(processors: Iterable[Processor], replication: int = 1) -> list[NewTopic]:
    """Return the changelogs of processors that Faust hosts, as Faust itself would make them.

    One that Faust had only just made it may not see, nor look for again.
    """
    return [_compacted(changelog_topic(each.name), each, replication) for each in _keyed(processors)]


def _keyed(processors: Iterable[Processor]) -> list[KeyedProcessor[Any]]:
    return [processor for processor in processors if isinstance(processor, KeyedProcessor)]


def _compacted(
    name: str, processor: KeyedProcessor[Any], replication: int, more: Mapping[str, str] | None = None
) -> NewTopic:
    configs = {"cleanup.policy": "compact", **(more or {})}
    return NewTopic(name, partitions_of(processor.inputs), replication, topic_configs=configs)


def partitions_of(inputs: Sequence[type[Event]]) -> int:
    """Return the partition count that a processor's inputs share.

    Raises:
        ConfigurationError: they differ, so a key's events would not meet in one replica.
    """
    counts = {topic_of(event).name: topic_of(event).partitions for event in inputs}
    if len(set(counts.values())) != 1:
        raise ConfigurationError(f"topics read together need equal partition counts: {counts}")
    return next(iter(counts.values()))


async def ensure_topics(settings: BusSettings, own: Sequence[NewTopic] = ()) -> None:
    """Create what is missing, leave what exists, and verify the partition counts.

    Args:
        settings: how to reach the broker.
        own: topics beside the registry's, such as `state_topics`.

    Raises:
        ConfigurationError: an existing topic has another number of partitions.
        KafkaError: the broker is away, or has not caught up; call again.
    """
    wanted = registry_topics(settings.replication) + list(own)
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        missing = [topic for topic in wanted if topic.name not in existing]
        if missing:
            answer = await admin.create_topics(missing)
            for _name, code, *_message in answer.topic_errors:
                # Another service has been quicker: they all start with this step.
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise for_code(code)(str(_message))
        await _verify(admin, wanted)
    finally:
        await admin.close()


async def _verify(admin: AIOKafkaAdminClient, wanted: Sequence[NewTopic]) -> None:
    found = await _partition_counts(admin, wanted)
    for topic in wanted:
        if found[topic.name] != topic.num_partitions:
            raise ConfigurationError(
                f"topic {topic.name} has {found[topic.name]} partitions, not {topic.num_partitions}: "
                "keys would be ordered differently. Create it anew, or use another cluster."
            )


async def _partition_counts(admin: AIOKafkaAdminClient, wanted: Sequence[NewTopic]) -> dict[str, int]:
    """Return partition counts by topic; a topic just created takes a moment to be seen."""
    names = {topic.name for topic in wanted}
    for _ in range(VISIBLE_TRIES):
        described = await admin.describe_topics(sorted(names))
        found = {topic["topic"]: len(topic["partitions"]) for topic in described if topic["partitions"]}
        if names <= found.keys():
            return found
        await asyncio.sleep(VISIBLE_WAIT_S)
    raise UnknownTopicOrPartitionError(f"created and not to be seen yet: {sorted(names - found.keys())}")
