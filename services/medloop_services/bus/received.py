"""What has come in: a record with its origin, and the event in it or why there is none."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from medloop_schemas import Event, InvalidEvent, decode


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
) -> Received:
    """Return a record with its event decoded; a key that isn't the event's own is an error of the record.

    A wrong key would put the event on a partition where the others of its key are not.
    """
    content: Event | InvalidEvent
    try:
        content = decode(event_type, value)
        if key != content.key.encode():
            told = "no key" if key is None else f"key {key.decode(errors='replace')!r}"
            content = InvalidEvent("key", "", f"the record has {told}, the event's is {content.key!r}")
    except InvalidEvent as error:
        content = error
    return Received(topic, partition, offset, key, value, tuple(headers), content)


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
