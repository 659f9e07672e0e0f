"""What has come in: a record with its origin, and the event in it or why there is none."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from medloop_schemas import Event, InvalidEvent, decode

from medloop_services.bus.key_partition import partition_of

WRONG_PARTITION = "partition"
"""Code of a record that is not where its key's others are."""


@dataclass(frozen=True, slots=True)
class Received:
    """One record of an input topic.

    Attributes:
        topic, partition, offset: where it stands.
        key, value, headers: its bytes as they came.
        content: the event, or why the bytes are none.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    content: Event | InvalidEvent


def receive(
    event_type: type[Event],
    *,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes]],
    partitions: int | None,
) -> Received:
    """Return a record with its event decoded, or why it is none.

    A key that isn't the event's own, or a partition that isn't the key's (of the topic's `partitions`, where
    they are known), is an error of the record: the others of its key would be handled elsewhere.
    """
    content: Event | InvalidEvent
    try:
        content = decode(event_type, value)
        _require_key(content, key)
        if partitions is not None:
            _require_partition(content.key.encode(), partition, partitions)
    except InvalidEvent as error:
        content = error
    return Received(topic, partition, offset, key, value, tuple(headers), content)


def _require_key(event: Event, key: bytes | None) -> None:
    if key != event.key.encode():
        told = "no key" if key is None else f"key {key.decode(errors='replace')!r}"
        raise InvalidEvent("key", "", f"the record has {told}, the event's is {event.key!r}")


def _require_partition(key: bytes, partition: int, partitions: int) -> None:
    if partition != (own := partition_of(key, partitions)):
        raise InvalidEvent(
            WRONG_PARTITION,
            "",
            f"the record is on partition {partition}, its key's is {own} of {partitions}: partition by "
            "murmur2 as Java's producers do (librdkafka: partitioner=murmur2_random), and replay this",
        )


def in_order(inputs: Sequence[Sequence[Received]]) -> Iterator[Received]:
    """Merge one partition's records of several topics by event time, then by the topics' order.

    Each topic keeps its own order of offsets, whatever its event times; a record without an event is taken
    right after the one before it. What was not fetched together is not merged: a core must not depend on the
    order between two topics, and gets it in event time where it can be had.
    """
    return (record for _, record in heapq.merge(*map(_timed, inputs), key=lambda pair: pair[0]))


def _timed(records: Sequence[Received]) -> Iterator[tuple[float, Received]]:
    now = float("-inf")
    for record in records:
        if isinstance(record.content, Event):
            now = _seconds(record.content.time)
        yield now, record


def _seconds(time: datetime) -> float:
    return time.timestamp()
