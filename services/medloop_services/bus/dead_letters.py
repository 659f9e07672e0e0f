"""What was sent away: list it, look at one, send it again to where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from medloop_schemas import TOPICS

from medloop_services.bus.connection import client_arguments
from medloop_services.bus.dead_letter import HEADER_PREFIX
from medloop_services.bus.health import Health
from medloop_services.bus.outgoing import Outgoing
from medloop_services.bus.received import WRONG_PARTITION
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings

POLL_MS = 200
REPLAYED = "medloop-replayed"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be handled.

    Attributes:
        topic, partition, offset: where it came from; several services may have refused the same record.
        service: who refused it.
        code, field, reason: why.
        key, value, headers: the record, byte for byte but for `cut_bytes`.
    """

    topic: str
    partition: int
    offset: int
    service: str
    code: str
    field: str
    reason: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    cut_bytes: int

    @property
    def place(self) -> str:
        """Its name for a person: `topic:partition:offset` of the record it came from."""
        return f"{self.topic}:{self.partition}:{self.offset}"


async def list_dead_letters(settings: BusSettings, topic: str | None = None) -> list[DeadLetter]:
    """Return the dead letters of one topic or of all, in the order of their origin.

    A repeat of the same letter, which a crash can cause, is listed once.

    Raises:
        KafkaError: no broker answers.
    """
    consumer = AIOKafkaConsumer(
        **client_arguments(settings), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        places = [
            TopicPartition(each.dead_letters, partition)
            for each in TOPICS
            if topic in (None, each.name)
            for partition in range(each.partitions)
        ]
        records = await _read_whole(consumer, places)
    finally:
        await consumer.stop()
    letters = {(letter.place, letter.service): letter for letter in map(read_letter, records)}
    return sorted(letters.values(), key=lambda letter: (letter.topic, letter.partition, letter.offset))


async def show_dead_letter(settings: BusSettings, place: str) -> list[DeadLetter]:
    """Return the dead letters of the record at `topic:partition:offset`: one a service that refused it."""
    topic = place.partition(":")[0]
    return [letter for letter in await list_dead_letters(settings, topic) if letter.place == place]


async def replay_dead_letters(settings: BusSettings, letters: Sequence[DeadLetter]) -> int:
    """Send records again to the topic and partition they came from; return how many.

    One that was on a wrong partition goes to its key's; one that was cut stays where it is.
    A record that several services refused is sent once; those that had handled it know it by its id.
    """
    records = {
        letter.place: Outgoing(
            letter.topic,
            letter.key,
            letter.value,
            (*letter.headers, (REPLAYED, letter.place.encode())),
            None if letter.code == WRONG_PARTITION else letter.partition,
        )
        for letter in letters
        if not letter.cut_bytes
    }
    sender = Sender(settings, Health(), "dead letters")
    try:
        await sender.deliver(list(records.values()))
    finally:
        await sender.stop()
    return len(records)


async def _read_whole(consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> list[ConsumerRecord]:
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    ends = await consumer.end_offsets(places)
    found: list[ConsumerRecord] = []
    while any([await consumer.position(place) < end for place, end in ends.items()]):
        for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
            found += records
    return found


def read_letter(record: ConsumerRecord[bytes, bytes]) -> DeadLetter:
    """Return a dead letter from its record, whoever wrote that."""
    told = {
        name.removeprefix(HEADER_PREFIX): (value or b"").decode(errors="replace")
        for name, value in record.headers
        if name.startswith(HEADER_PREFIX)
    }
    return DeadLetter(
        topic=told.get("topic", record.topic.removesuffix(".dlq")),
        partition=_number(told.get("partition"), record.partition),
        offset=_number(told.get("offset"), -1),
        service=told.get("service", "unknown"),
        code=told.get("error-code", "unknown"),
        field=told.get("error-field", ""),
        reason=told.get("error-reason", "it was put here without a reason"),
        key=record.key,
        value=record.value,
        headers=tuple(
            (name, value or b"") for name, value in record.headers if not name.startswith(HEADER_PREFIX)
        ),
        cut_bytes=_number(told.get("cut-bytes"), 0),
    )


def _number(text: str | None, otherwise: int) -> int:
    """Return a header's number; a letter that somebody else wrote may say anything."""
    return int(text) if text and text.isascii() and text.isdecimal() else otherwise
