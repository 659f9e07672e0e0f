"""kill -9 of a keyed service and of the broker: nothing lost, nothing doubled in effect, the same state."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tally
from aiokafka import AIOKafkaConsumer, TopicPartition
from medloop_schemas import LabelConfirmed, decode, topic_of
from medloop_services.bus.broker import EmbeddedBroker
from medloop_services.bus.health import Health
from medloop_services.bus.outgoing import outgoing
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.state_record import from_records
from medloop_services.bus.topic_names import state_topic

pytestmark = [pytest.mark.faults, pytest.mark.integration, pytest.mark.timeout(240)]

DEVICES = 8
EVENTS = 2_000
CHUNK = 20
RATE = 1_000
PATIENCE_S = 120
LABELS = topic_of(LabelConfirmed).name


class Worker:
    """The tally service as a process that can be killed and started again."""

    def __init__(self, broker: EmbeddedBroker, log: Path) -> None:
        self._environment = {
            **os.environ,
            "MEDLOOP_KAFKA": broker.bootstrap,
            "MEDLOOP_REPLICA": "tally-0",
            "MEDLOOP_SESSION_TIMEOUT_MS": "2000",
        }
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, tally.__file__], env=self._environment, stderr=sink, stdout=sink
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture(scope="module")
def worker(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    started = Worker(broker, tmp_path_factory.mktemp("tally") / "tally.log")
    yield started
    assert started.stop() == 0


def images(prefix: str) -> list[Any]:
    return [tally.image(f"{prefix}-{i % DEVICES}", i // DEVICES) for i in range(EVENTS)]


def clean_run(events: list[Any]) -> tuple[dict[str, Any], dict[str, LabelConfirmed]]:
    states: dict[str, Any] = {}
    labels: dict[str, LabelConfirmed] = {}
    for event in events:
        states[event.key], outputs = tally.step(states.get(event.key, tally.TallyState()), event)
        labels.update({output.event_id: output for output in outputs})
    return states, labels


async def feed(settings: BusSettings, events: list[Any], fault: Callable[[], None], at: int) -> None:
    """Send events at a rate; cause the fault, beside the sending, when `at` of them have been sent."""
    sender = Sender(settings, Health(), "feed")
    causing: list[asyncio.Task[None]] = []
    for first in range(0, len(events), CHUNK):
        began = time.monotonic()
        if first <= at < first + CHUNK:
            causing.append(asyncio.create_task(asyncio.to_thread(fault)))
        await sender.deliver([outgoing(event, "/feed") for event in events[first : first + CHUNK]])
        await asyncio.sleep(max(0.0, CHUNK / RATE - (time.monotonic() - began)))
    await asyncio.gather(*causing)
    await sender.stop()


async def latest(settings: BusSettings, topic: str) -> list[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(topic, partition) for partition in range(4)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        found: list[Any] = []
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                found += records
        return found
    finally:
        await consumer.stop()


async def effect(settings: BusSettings, prefix: str) -> tuple[dict[str, LabelConfirmed], int]:
    """Return the labels by event id, and how many of them the wire carried more than once."""
    records = await latest(settings, LABELS)
    events = [decode(LabelConfirmed, record.value) for record in records]
    mine = [event for event in events if event.device_id.startswith(prefix)]
    return {event.event_id: event for event in mine}, len(mine)


async def stored(settings: BusSettings, prefix: str) -> dict[str, Any]:
    values: dict[bytes, bytes] = {}
    for record in await latest(settings, state_topic("tally")):
        if record.value is None:
            values.pop(record.key, None)
        else:
            values[record.key] = record.value
    kept = from_records(tally.TallyState, values)
    return {key: each.state for key, each in kept.items() if key.startswith(prefix)}


async def same_as_a_clean_run(
    settings: BusSettings, prefix: str, fault: Callable[[], None], at: int, record: Callable[..., None]
) -> None:
    events = images(prefix)
    states, labels = clean_run(events)
    await feed(settings, events, fault, at)
    deadline = time.monotonic() + PATIENCE_S
    while (await stored(settings, prefix)) != states and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    found, on_the_wire = await effect(settings, prefix)
    record("repeated_on_the_wire", on_the_wire - len(found))
    assert labels.keys() - found.keys() == set(), "lost"
    assert found == labels
    assert await stored(settings, prefix) == states


async def test_a_killed_service_loses_and_doubles_nothing(
    broker: EmbeddedBroker,
    worker: Worker,
    round_number: int,
    record_property: Callable[..., None],
) -> None:
    at = random.Random(round_number).randint(EVENTS // 5, 4 * EVENTS // 5)
    settings = BusSettings(kafka=broker.bootstrap)
    await same_as_a_clean_run(settings, f"service-{round_number}x", worker.kill, at, record_property)


async def test_a_killed_broker_loses_and_doubles_nothing(
    broker: EmbeddedBroker,
    worker: Worker,
    round_number: int,
    record_property: Callable[..., None],
) -> None:
    def restart() -> None:
        broker.kill()
        broker.start()

    at = random.Random(1_000 + round_number).randint(EVENTS // 5, 4 * EVENTS // 5)
    settings = BusSettings(kafka=broker.bootstrap)
    process = worker.process
    await same_as_a_clean_run(settings, f"broker-{round_number}x", restart, at, record_property)
    assert worker.process is process, "the service was not restarted by the test"
    assert process.poll() is None, "the service has lived through the outage"
