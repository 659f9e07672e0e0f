"""kill -9 of a keyed service and of the broker: nothing lost, nothing doubled in effect, the same state."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tally
from medloop_schemas import LabelConfirmed, decode, topic_of
from medloop_services.bus.broker import EmbeddedBroker
from medloop_services.bus.health import Health
from medloop_services.bus.outgoing import outgoing
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.state_record import from_records
from medloop_services.bus.topic_names import state_topic
from topic_reader import compacted, read_topic

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


@dataclass(frozen=True)
class Effect:
    """What the service has brought about: labels by event id, and states by key."""

    labels: dict[str, LabelConfirmed]
    states: dict[str, Any]


def clean_run(events: list[Any]) -> Effect:
    states: dict[str, Any] = {}
    labels: dict[str, LabelConfirmed] = {}
    for event in events:
        states[event.key], outputs = tally.step(states.get(event.key, tally.TallyState()), event)
        labels.update({output.event_id: output for output in outputs})
    return Effect(labels, states)


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


async def stored(settings: BusSettings, prefix: str, since_ms: int) -> dict[str, Any]:
    values = compacted(await read_topic(settings, state_topic("tally"), since_ms))
    kept = from_records(tally.TallyState, values)
    return {key: each.state for key, each in kept.items() if key.startswith(prefix)}


async def after_a_fault(
    settings: BusSettings, prefix: str, fault: Callable[[], None], at: int, record: Callable[..., None]
) -> tuple[Effect, Effect]:
    """Return what a clean run brings about, and what the service has when a fault struck meanwhile."""
    events = images(prefix)
    clean = clean_run(events)
    since_ms = int(time.time() * 1000)
    await feed(settings, events, fault, at)
    deadline = time.monotonic() + PATIENCE_S
    while (
        states := await stored(settings, prefix, since_ms)
    ) != clean.states and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    labels = [decode(LabelConfirmed, each.value) for each in await read_topic(settings, LABELS, since_ms)]
    mine = [label for label in labels if label.device_id.startswith(prefix)]
    found = {label.event_id: label for label in mine}
    record("repeated_on_the_wire", len(mine) - len(found))
    return clean, Effect(found, states)


async def test_a_killed_service_loses_and_doubles_nothing(
    broker: EmbeddedBroker,
    worker: Worker,
    round_number: int,
    record_property: Callable[..., None],
) -> None:
    at = random.Random(round_number).randint(EVENTS // 5, 4 * EVENTS // 5)
    settings = BusSettings(kafka=broker.bootstrap)
    clean, found = await after_a_fault(settings, f"service-{round_number}x", worker.kill, at, record_property)
    assert clean.labels.keys() - found.labels.keys() == set(), "lost"
    assert found == clean


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
    clean, found = await after_a_fault(settings, f"broker-{round_number}x", restart, at, record_property)
    assert clean.labels.keys() - found.labels.keys() == set(), "lost"
    assert found == clean
    assert worker.process is process, "the service was not restarted by the test"
    assert process.poll() is None, "the service has lived through the outage"
