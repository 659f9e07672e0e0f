"""Messages to Kafka, in order, at a chosen rate or as fast as it takes them, each once if interrupted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from medloop_schemas import Message, TransientError

from medloop_services.bus.connection import client_arguments
from medloop_services.bus.settings import BusSettings
from medloop_services.replay.consumer import read_to_end

LINGER_MS = 5
"""How long a batch waits to fill."""

IN_FLIGHT = 2000
"""Messages sent but not yet acknowledged by all replicas."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a replay did: messages acknowledged, and messages skipped because they were there already."""

    acknowledged: int
    skipped: int


def _silent(count: int) -> None:
    """Tell nobody."""


async def send(
    settings: BusSettings,
    messages: Iterable[Message],
    *,
    rate: float | None = None,
    paced_topics: Collection[str] = (),
    skip: Collection[str] = (),
    progress: Callable[[int], None] = _silent,
) -> Sent:
    """Send messages in order and return once all replicas have acknowledged them.

    A cancellation (Ctrl-C) delivers what was handed over and then ends the call; a later call goes on where
    it stopped if it skips `sent_ids`.

    Args:
        settings: how the cluster is reached.
        messages: what to send, in order.
        rate: messages a second; as fast as the broker takes them if None.
        paced_topics: only messages of these topics count for the rate, the others go with them; all if empty.
        skip: event ids not to send.
        progress: is told how many more messages are done.

    Raises:
        TransientError: the broker does not answer.
    """
    producer = AIOKafkaProducer(
        **client_arguments(settings), enable_idempotence=True, acks="all", linger_ms=LINGER_MS
    )
    try:
        await producer.start()
    except KafkaError as error:
        await producer.stop()
        raise TransientError(
            f"no broker answers at {settings.kafka} ({error}); "
            "start one with `medloop up` or set MEDLOOP_KAFKA"
        ) from None
    try:
        return await _send_all(producer, messages, _Pace(rate, frozenset(paced_topics)), set(skip), progress)
    except KafkaError as error:
        raise TransientError(
            f"the broker at {settings.kafka} went away ({error}); run the same replay again"
        ) from None
    finally:
        await producer.stop()


async def _send_all(
    producer: AIOKafkaProducer,
    messages: Iterable[Message],
    pace: _Pace,
    skip: set[str],
    progress: Callable[[int], None],
) -> Sent:
    waiting: deque[asyncio.Future[object]] = deque()
    acknowledged = skipped = 0
    for message in messages:
        if skip and event_id_of(message.headers) in skip:
            skipped += 1
            progress(1)
            continue
        await pace.wait_for(message.topic)
        waiting.append(
            await producer.send(
                message.topic, message.value, key=message.key or None, headers=list(message.headers)
            )
        )
        while len(waiting) > IN_FLIGHT or (waiting and waiting[0].done()):
            await waiting.popleft()
            acknowledged += 1
            progress(1)
    while waiting:
        await waiting.popleft()
        acknowledged += 1
        progress(1)
    return Sent(acknowledged, skipped)


class _Pace:
    """Message n of the paced topics leaves n/rate seconds after the first, or at once if that is past."""

    def __init__(self, rate: float | None, topics: frozenset[str]) -> None:
        self._rate = rate
        self._topics = topics
        self._started: float | None = None
        self._count = 0

    async def wait_for(self, topic: str) -> None:
        if self._rate is None or (self._topics and topic not in self._topics):
            return
        now = asyncio.get_running_loop().time()
        if self._started is None:
            self._started = now
        delay = self._started + self._count / self._rate - now
        self._count += 1
        if delay > 0:
            await asyncio.sleep(delay)


def event_id_of(headers: Iterable[tuple[str, bytes]]) -> str | None:
    """Return the CloudEvents id in a record's headers, if there is one."""
    return next((value.decode() for name, value in headers if name == "ce_id"), None)


async def sent_ids(settings: BusSettings, topics: Collection[str]) -> set[str]:
    """Return the ids of all events that lie in some topics now.

    Raises:
        TransientError: the broker does not answer.
    """
    ids = set()
    async for record in read_to_end(settings, topics):
        identifier = event_id_of(record.headers)
        if identifier is not None:
            ids.add(identifier)
    return ids
