"""kill -9 of every service, as the process that is deployed: outputs and states equal to a clean run's.

What a service reads was recorded from the whole loop in one process. Each round plays it, under a site of its
own, to the service's process, kills that at a seeded random event and starts it again; then every output must
be there, under its id and with its content, and every state on the state topic must be the one that the same
cores reach in process. An output repeated on the wire, id and content alike, has no second effect.

The cores may depend on the order between topics where a decision meets the stream: a release and the images
served after it, a candidate and the examples that judge it, a micro-batch and the labels counted after it.
There the recorded order is kept, by waiting until what was sent before has been committed. Where a core must
not depend on it (feature_stats, and the learner's pairing) nothing waits.

event_aggregation is compared by levels: Faust may repeat an input, so of a request only its id and last
content count. Inference has no state. Pairing hands on examples in an order that differs from run to run, so
the learner is taught at one site, in the recorded order, while pairing works for another.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorError
from medloop_model import pretrained
from medloop_schemas import (
    AdaptationRequested,
    CandidateTrained,
    Event,
    ImageAcquired,
    LabelConfirmed,
    PredictionMade,
    ReleaseChanged,
    decode,
    topic_of,
)
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.broker import EmbeddedBroker, free_port
from medloop_services.bus.context import Context
from medloop_services.bus.dead_letters import list_dead_letters
from medloop_services.bus.health import Health
from medloop_services.bus.outgoing import outgoing
from medloop_services.bus.processor import KeyedProcessor, Service
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.state_record import from_records
from medloop_services.bus.topic_names import consumer_group, state_topic
from medloop_services.bus.topics import ensure_topics
from medloop_services.loop import InProcessLoop, services
from medloop_services.replay.dataset import draw_dataset
from medloop_services.replay.scenario import build_scenario
from medloop_services.replay.settings import ScenarioSettings
from medloop_services.stack import SERVICES

pytestmark = [pytest.mark.faults, pytest.mark.integration, pytest.mark.timeout(600)]

ROUNDS = int(os.environ.get("MEDLOOP_FAULT_ROUNDS", "1"))
EVENTS = int(os.environ.get("MEDLOOP_FAULT_EVENTS", "2000" if ROUNDS >= 20 else "300"))
LABEL_DELAY = 16
"""Images of a micro-batch: a label comes after the batch of its image, and is a signal of its own."""
IMAGES_BEFORE = 160
WHOLE_LOOP = 420
"""Images in which a candidate is trained, judged and tried."""
IMAGES = max(EVENTS + 4 * LABEL_DELAY, WHOLE_LOOP)  # the last ones are not in a whole micro-batch
CHUNK = 20
RATE = 1_000
PATIENCE_S = 180
POLL_S = 0.03
REST_S = 1.0

RECORDED_SITE = "recorded-site"
PAIRED = "-paired"
SITES = [f"round-{number}-site" for number in range(ROUNDS)]
SETTINGS = {
    "MEDLOOP_PUBLISHER_MODEL": str(pretrained.path("phantom")),
    "MEDLOOP_PUBLISHER_MIN_NEW": "12",
    "MEDLOOP_PUBLISHER_MIN_OLD": "8",
    "MEDLOOP_PUBLISHER_CONFIDENCE": "0.51",
    "MEDLOOP_PUBLISHER_TOLERANCE": "0.2",
    "MEDLOOP_PUBLISHER_CANARY_EXAMPLES": "8",
    "MEDLOOP_PUBLISHER_CANARY_TOLERANCE": "0.5",
    "MEDLOOP_PUBLISHER_MEMORY": "64",
    "MEDLOOP_DRIFT_DETECTION_LABELS_PER_SIGNAL": "1",
    "MEDLOOP_EVENT_AGGREGATION_SIGNALS_PER_REPEAT": "256",
    "MEDLOOP_ONLINE_LEARNER_LABELS_SHALLOW": "16",
    "MEDLOOP_ONLINE_LEARNER_LABELS_DISTIL": "16",
    "MEDLOOP_ONLINE_LEARNER_BATCH_SIZE": "8",
    "MEDLOOP_ONLINE_LEARNER_MEMORY": "32",
    "MEDLOOP_ONLINE_LEARNER_OPEN_MEMORY": "64",
    "MEDLOOP_ONLINE_LEARNER_ATTEMPTS": "2",
}

RARE = (AdaptationRequested, CandidateTrained, ReleaseChanged)
"""Decisions: what comes before one and what comes after it must not change places."""
PAIRING_INPUTS = (ImageAcquired, PredictionMade, LabelConfirmed)
RELEASES = topic_of(ReleaseChanged).name

Identity = tuple[str, str, str]
"""Event type, key, event id: image ids, and so event ids, are the same in every round."""


def identity(event: Event) -> Identity:
    return event.event_type, event.key, event.event_id


# --- what is played -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)  # as in every service's process
    return tmp_path_factory.mktemp("killed")


def context(folder: Path, sites: Sequence[str]) -> Context:
    store = ArtifactStore((folder / "artifacts").as_uri(), cache=folder / "cache")
    return Context(store, {**SETTINGS, "MEDLOOP_PUBLISHER_SITES": ",".join(sites)})


@pytest.fixture(scope="session")
def recording(folder: Path) -> list[Event]:
    """Every event of a whole loop, in order."""
    wanted = ScenarioSettings(
        site=RECORDED_SITE,
        images_before=IMAGES_BEFORE,
        images_after=IMAGES - IMAGES_BEFORE,
        label_delay=LABEL_DELAY,
    )
    recorded: list[Event] = []
    loop = InProcessLoop(services(context(folder, [RECORDED_SITE])), recorded.append)
    for event in build_scenario(draw_dataset(), "data-drift", wanted).events():
        loop.publish([event])
    assert {event.event_type for event in recorded} >= {kind.event_type for kind in RARE}
    return recorded


def moved(event: Event, site: str) -> Event:
    """Return the same event as of another site and its devices."""
    return type(event).model_validate_json(event.model_dump_json().replace(RECORDED_SITE, site))


def played(recording: Sequence[Event], service: Service, site: str) -> list[Event]:
    """Return a service's inputs as of a site, in the recorded order, at most about EVENTS."""
    inputs = {kind for processor in service.processors for kind in processor.inputs}
    inputs |= {follower.event for follower in service.followers}
    if service.name == "publisher":
        inputs -= {ReleaseChanged}  # it makes them
    elif service.name == "feature_stats":
        recording = [event for event in recording if type(event) in inputs][:EVENTS]
    elif service.name == "online_learner":
        half = max(EVENTS // 2, WHOLE_LOOP)
        paired = [event for event in recording if isinstance(event, PAIRING_INPUTS)][:half]
        taught = [event for event in recording if type(event) in inputs - {*PAIRING_INPUTS}][:half]
        return [
            *(moved(event, f"{site}{PAIRED}") for event in paired),
            *(moved(event, site) for event in taught),
        ]
    return [moved(event, site) for event in recording if type(event) in inputs]


def stretches(events: Sequence[Event], service: Service) -> Iterator[list[Event]]:
    """Divide events where what was sent must have been committed before the next is."""
    stretch: list[Event] = []
    for event in events:
        if isinstance(event, RARE):
            yield from waves(stretch, service)
            yield [event]
            stretch = []
        else:
            stretch.append(event)
    yield from waves(stretch, service)


def waves(stretch: Sequence[Event], service: Service) -> Iterator[list[Event]]:
    """Divide a stretch so that none has one key on two topics, unless the core takes any order."""
    if service.name != "drift_detection":
        if stretch:
            yield list(stretch)
        return
    found: list[list[Event]] = []
    last: dict[str, tuple[int, type[Event]]] = {}
    for event in stretch:
        wave, kind = last.get(event.key, (0, type(event)))
        wave += kind is not type(event)
        last[event.key] = wave, type(event)
        found += [[] for _ in range(wave + 1 - len(found))]
        found[wave].append(event)
    yield from found


# --- the clean run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """What a service has brought about: outputs by identity, states by processor and key, as JSON."""

    outputs: dict[Identity, str]
    states: dict[tuple[str, str], str]


def clean_run(service: Service, events: Sequence[Event], site: str) -> Effect:
    given = {identity(event) for event in events}
    outputs: dict[Identity, str] = {}

    def observe(event: Event) -> None:
        if event.key.startswith(site) and identity(event) not in given:
            outputs[identity(event)] = event.model_dump_json()

    loop = InProcessLoop((service,), observe)
    loop.publish(events)
    assert not loop.dead_letters
    states = {
        (processor.name, key): state.model_dump_json()
        for processor in service.processors
        for key, state in loop.states(processor.name).items()
        if compared(processor.name, key)
    }
    return Effect(outputs, states)


def compared(processor: str, key: str) -> bool:
    """Faust's table is not a state topic; at the site that pairing works for, examples come in any order."""
    return processor != "event_aggregation" and (processor != "online_learner.learning" or PAIRED not in key)


# --- the service's process ------------------------------------------------------------------------------


class Killable:
    """`medloop service NAME` on a broker of its own; killed, it is started again."""

    def __init__(self, name: str, settings: BusSettings, folder: Path) -> None:
        self.name = name
        self.settings = settings
        self.log = folder / f"{name}.log"
        self._port = free_port()
        self._environment = {
            **os.environ,
            **SETTINGS,
            "OMP_NUM_THREADS": "1",
            "MEDLOOP_CACHE": str(folder / "cache"),
            "MEDLOOP_KAFKA": settings.kafka,
            "MEDLOOP_ARTIFACTS": settings.artifacts,
            "MEDLOOP_HEALTH_PORT": str(self._port),
            "MEDLOOP_PUBLISHER_SITES": ",".join(SITES),
            "MEDLOOP_REPLICA": f"{name}-0",
            "MEDLOOP_SESSION_TIMEOUT_MS": "2000",
        }
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "medloop_services.cli", "service", self.name],
                env=self._environment,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        assert self.process.poll() is None, self.log.read_text()
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)

    def followed(self) -> int:
        """Return how many releases it has applied since it was started."""
        return self._counted(f'medloop_followed_total{{topic="{RELEASES}"}}')

    def handled(self) -> int:
        """Return how many events it has handled since it was started."""
        return self._counted("medloop_events_total{")

    def _counted(self, counter: str) -> int:
        lines = (self._get("/metrics") or "").splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(counter))

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return None


@pytest.fixture(scope="module", params=SERVICES)
def killable(request: pytest.FixtureRequest, folder: Path) -> Iterator[Killable]:
    broker = EmbeddedBroker(folder / f"broker-of-{request.param}")
    broker.start()
    settings = BusSettings(kafka=broker.bootstrap, artifacts=(folder / "artifacts").as_uri())
    asyncio.run(ensure_topics(settings))
    started = Killable(request.param, settings, folder)
    try:
        yield started
        assert started.stop() == 0, started.log.read_text()
    finally:
        started.process.kill()
        broker.stop()


# --- the round ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Player:
    """Sends a service its inputs and sees how far it has come."""

    killable: Killable
    service: Service
    sender: Sender
    admin: AIOKafkaAdminClient
    reader: AIOKafkaConsumer

    async def play(self, events: Sequence[Event], kill_at: int) -> None:
        """Send events; kill the service, beside the sending, when so many have been sent."""
        sent = 0
        killing: list[asyncio.Task[None]] = []
        for stretch in stretches(events, self.service):
            for first in range(0, len(stretch), CHUNK):
                chunk = stretch[first : first + CHUNK]
                began = time.monotonic()
                if sent <= kill_at < sent + len(chunk):
                    killing.append(asyncio.create_task(asyncio.to_thread(self.killable.kill)))
                await self.sender.deliver([outgoing(event, "/recording") for event in chunk])
                if sent == 0:  # it is to be killed at work, not while it starts
                    await self.all_handled()
                sent += len(chunk)
                await asyncio.sleep(max(0.0, CHUNK / RATE - (time.monotonic() - began)))
            await self.all_handled()
        await asyncio.gather(*killing)
        await self.all_handled()

    async def all_handled(self) -> None:
        """Wait until everything sent so far has been committed and, by a follower, every release read."""
        deadline = time.monotonic() + PATIENCE_S
        while not (await self._committed() and await self._followed()):
            assert time.monotonic() < deadline, self.killable.log.read_text()[-4000:]
            await asyncio.sleep(POLL_S)

    async def _committed(self) -> bool:
        if self.service.name == "event_aggregation":
            return await self._at_rest()
        for processor in self.service.processors:
            places = [place for kind in processor.inputs for place in partitions(topic_of(kind).name)]
            ends = await self.reader.end_offsets(places)
            try:
                done = await self.admin.list_consumer_group_offsets(consumer_group(processor.name))
            except (GroupCoordinatorNotAvailableError, NotCoordinatorError):
                return False  # a new broker's first group has none for a moment
            if any(end and (place not in done or done[place].offset < end) for place, end in ends.items()):
                return False
        return True

    async def _at_rest(self) -> bool:
        """Faust may put a commit off for long, and then repeats: wait until it handles nothing more."""
        before = await asyncio.to_thread(self.killable.handled)
        await asyncio.sleep(REST_S)
        return 0 < before == await asyncio.to_thread(self.killable.handled)

    async def _followed(self) -> bool:
        if not self.service.followers:
            return True
        ends = await self.reader.end_offsets(partitions(RELEASES))
        released: int = sum(ends.values())
        return await asyncio.to_thread(self.killable.followed) >= released

    async def records(self, topic: str) -> list[Any]:
        """Return what a topic holds, in the order of each partition."""
        places = partitions(topic)
        self.reader.assign(places)
        await self.reader.seek_to_beginning(*places)
        ends = await self.reader.end_offsets(places)
        found: list[Any] = []
        while any([await self.reader.position(place) < end for place, end in ends.items()]):
            for records in (await self.reader.getmany(timeout_ms=100)).values():
                found += records
        return found

    async def outputs(self, site: str, given: set[Identity]) -> list[tuple[Identity, str]]:
        """Return every record of an output of a site, repeats and all."""
        kinds = {kind for processor in self.service.processors for kind in processor.outputs}
        events = [
            decode(kind, record.value)
            for kind in kinds
            for record in await self.records(topic_of(kind).name)
            if record.key.decode().startswith(site)
        ]
        return [
            (identity(event), event.model_dump_json()) for event in events if identity(event) not in given
        ]

    async def states(self, site: str) -> dict[tuple[str, str], str]:
        """Return the states of a site and its devices, as a restarted service would read them back."""
        found: dict[tuple[str, str], str] = {}
        for processor in self.service.processors:
            if not isinstance(processor, KeyedProcessor) or processor.name == "event_aggregation":
                continue
            latest: dict[bytes, bytes] = {}
            for record in await self.records(state_topic(processor.name)):
                if record.value is None:
                    latest.pop(record.key, None)
                else:
                    latest[record.key] = record.value
            for key, kept in from_records(processor.state, latest).items():
                if key.startswith(site) and compared(processor.name, key):
                    found[processor.name, key] = kept.state.model_dump_json()
        return found


def partitions(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(topic_of(ImageAcquired).partitions)]


@asynccontextmanager
async def player(killable: Killable, service: Service) -> AsyncIterator[Player]:
    sender = Sender(killable.settings, Health(), "recording")
    admin = AIOKafkaAdminClient(bootstrap_servers=killable.settings.kafka)
    reader = AIOKafkaConsumer(bootstrap_servers=killable.settings.kafka, enable_auto_commit=False)
    await admin.start()
    await reader.start()
    try:
        yield Player(killable, service, sender, admin, reader)
    finally:
        await sender.stop()
        await admin.close()
        await reader.stop()


async def test_a_killed_service_goes_on_as_if_nothing_had_been(
    killable: Killable,
    round_number: int,
    recording: list[Event],
    folder: Path,
    record_property: Callable[[str, object], None],
) -> None:
    site = SITES[round_number]
    service = next(each for each in services(context(folder, SITES)) if each.name == killable.name)
    events = played(recording, service, site)
    assert len(events) >= EVENTS
    given = {identity(event) for event in events}
    kill_at = random.Random(f"{killable.name}/{round_number}").randint(len(events) // 5, 4 * len(events) // 5)
    async with player(killable, service) as playing:
        clean, _ = await asyncio.gather(
            asyncio.to_thread(clean_run, service, events, site), playing.play(events, kill_at)
        )
        found = await playing.outputs(site, given)
        states = await playing.states(site)
    once = dict(found)
    contents = once.items() if killable.name == "event_aggregation" else found
    record_property("events", len(events))
    record_property("repeated_on_the_wire", len(found) - len(once))
    assert clean.outputs.keys() - once.keys() == set(), "lost"
    assert once.keys() - clean.outputs.keys() == set(), "made up"
    different = {name for name, content in contents if content != clean.outputs[name]}
    assert different == set(), "doubled in effect"
    assert states == clean.states
    for kind in {type(event) for event in events}:
        assert not await list_dead_letters(killable.settings, topic_of(kind).name)
