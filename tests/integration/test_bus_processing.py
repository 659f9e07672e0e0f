"""What the bus does with events on a real broker, tried with the tally service of the fault tests."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tally
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from medloop_schemas import (
    Event,
    ImageAcquired,
    LabelConfirmed,
    TransientError,
    decode,
    topic_of,
)
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.broker import free_port
from medloop_services.bus.context import Context
from medloop_services.bus.dead_letters import list_dead_letters, replay_dead_letters, show_dead_letter
from medloop_services.bus.faust_recovery import LoudRecovery
from medloop_services.bus.faust_runner import FaustProcess
from medloop_services.bus.faust_service import FaustService
from medloop_services.bus.health import Health
from medloop_services.bus.key_partition import partition_of
from medloop_services.bus.outgoing import Outgoing, outgoing
from medloop_services.bus.processor import Follower, MapProcessor, Service
from medloop_services.bus.runner import AnyService, ServiceProcess
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.state_record import from_records
from medloop_services.bus.topic_names import changelog_topic, consumer_group, state_topic
from medloop_services.federation import app as federation
from medloop_services.publisher import app as publisher
from topic_reader import compacted, partitions, read_topic

pytestmark = pytest.mark.integration

IMAGES = topic_of(ImageAcquired).name
LABELS = topic_of(LabelConfirmed).name


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A processor name, and device prefix, of each test's own: the broker and its topics are shared."""
    return str(request.node.name).replace("_", "-").replace("[", "-").replace("]", "")


@pytest.fixture
async def sender(settings: BusSettings) -> AsyncIterator[Sender]:
    sending = Sender(settings, Health(), "test")
    yield sending
    await sending.stop()


async def labels_of(settings: BusSettings, prefix: str) -> list[LabelConfirmed]:
    events = [decode(LabelConfirmed, record.value) for record in await read_topic(settings, LABELS)]
    return [event for event in events if event.device_id.startswith(prefix)]


async def labels_when(settings: BusSettings, prefix: str, count: int) -> list[LabelConfirmed]:
    """Wait for so many labels, repeats not counted: a batch that a rebalance cut off is sent again."""
    async with asyncio.timeout(60):
        while True:
            found = await labels_of(settings, prefix)
            if len({(label.device_id, label.sequence) for label in found}) >= count:
                return found
            await asyncio.sleep(0.2)


def health_of(port: int) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as answer:
        return answer.code, json.load(answer)
    except OSError:
        return 0, {}


@asynccontextmanager
async def running(service: AnyService, settings: BusSettings) -> AsyncIterator[int]:
    """Run a service in this event loop until the block ends; yields its health port once it is ready."""
    port = free_port()
    process = ServiceProcess(service.name, lambda: service, settings.model_copy(update={"health_port": port}))
    work = asyncio.create_task(process.run())
    async with asyncio.timeout(60):
        while (await asyncio.to_thread(health_of, port))[0] != 200:
            assert not work.done(), work.result()
            await asyncio.sleep(0.1)
    yield port
    process.stop()
    assert await work == 0


def tallying(name: str) -> Service:
    return Service(name, (replace(tally.PROCESSOR, name=name),))


def hosted(name: str, host: str) -> AnyService:
    """The tally by either of the two hosts: the loop on aiokafka, or Faust."""
    return FaustService(name, replace(tally.PROCESSOR, name=name)) if host == "faust" else tallying(name)


def records(images: Sequence[Event]) -> list[Outgoing]:
    return [outgoing(image, "/test") for image in images]


async def test_each_key_is_stepped_in_order_and_once(
    settings: BusSettings, sender: Sender, name: str
) -> None:
    async with running(tallying(name), settings):
        await sender.deliver(records([tally.image(f"{name}-{i % 5}", i // 5) for i in range(200)]))
        labels = await labels_when(settings, name, 200)
    assert len(labels) == 200
    for device in {label.device_id for label in labels}:
        mine = [label for label in labels if label.device_id == device]
        assert [label.sequence for label in mine] == list(range(40))
        assert mine[-1].class_index == sum(range(40)) % 7


async def test_a_restart_goes_on_from_the_stored_state(
    settings: BusSettings, sender: Sender, name: str
) -> None:
    for part in range(3):
        async with running(tallying(name), settings):
            await sender.deliver(records([tally.image(name, part * 20 + i) for i in range(20)]))
            labels = await labels_when(settings, name, (part + 1) * 20)
    assert [label.class_name for label in labels] == [f"after-{count + 1}" for count in range(60)]
    stored = compacted(await read_topic(settings, state_topic(name)))
    kept = from_records(tally.TallyState, stored)[name]
    assert kept.state.count == 60
    assert kept.state.recent == {i % 5: f"{name}-{i}" for i in range(55, 60)}
    mine = [key for key in stored if json.loads(key)[0] == name]
    assert len(mine) == 1 + 5, "replaced items have been deleted"


async def test_what_is_in_the_state_is_skipped_when_it_comes_again(
    settings: BusSettings, sender: Sender, name: str
) -> None:
    async with running(tallying(name), settings):
        await sender.deliver(records([tally.image(name, i) for i in range(30)]))
        await labels_when(settings, name, 30)
    # Forget the commits, not the states: what a crash between the two leaves behind.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka, group_id=f"medloop.{name}", enable_auto_commit=False
    )
    await consumer.start()
    places = [TopicPartition(IMAGES, partition) for partition in range(4)]
    consumer.assign(places)
    await consumer.commit(dict.fromkeys(places, 0))
    await consumer.stop()
    async with running(tallying(name), settings):
        await sender.deliver(records([tally.image(name, 30)]))
        labels = await labels_when(settings, name, 31)
    assert [label.class_name for label in labels] == [f"after-{count + 1}" for count in range(31)]


@pytest.mark.parametrize("host", ["aiokafka", "faust"])
async def test_a_bad_event_goes_to_the_dead_letters_and_the_stream_goes_on(
    settings: BusSettings, sender: Sender, name: str, host: str
) -> None:
    key = name.encode()
    async with running(hosted(name, host), settings):
        await sender.deliver(
            [
                *records([tally.image(name, 0)]),
                Outgoing(IMAGES, key, b"{oops"),
                Outgoing(IMAGES, key, b'{"image_id": "x"}'),
                Outgoing(IMAGES, key, outgoing(tally.image("other", 0), "/test").value),
                *records([tally.image(name, 1, study="bad"), tally.image(name, 2, study="bug")]),
                *records([tally.image(name, 3)]),
            ]
        )
        labels = await labels_when(settings, name, 2)
    assert [label.class_name for label in labels] == ["after-1", "after-2"]
    source = f"/medloop/{name}/0.1.0"
    letters = [one for one in await list_dead_letters(settings, IMAGES) if one.service == source]
    mine = [letter for letter in letters if letter.key == key]
    assert [letter.code for letter in mine] == ["json", "missing", "key", "study", "unhandled"]
    assert mine[0].value == b"{oops"
    assert mine[1].field == "time"
    assert "ZeroDivisionError" in mine[4].reason
    assert (await show_dead_letter(settings, mine[3].place))[0].reason == "the study is bad"


async def test_a_replayed_dead_letter_is_handled_again(
    settings: BusSettings, sender: Sender, name: str
) -> None:
    async with running(tallying(name), settings):
        await sender.deliver(records([tally.image(name, 0, study="bad")]))
        async with asyncio.timeout(30):
            while not (mine := await _letters(settings, name)):
                await asyncio.sleep(0.2)
        assert await replay_dead_letters(settings, mine) == 1
        async with asyncio.timeout(30):
            while len(mine := await _letters(settings, name)) < 2:
                await asyncio.sleep(0.2)
    assert mine[0].value == mine[1].value
    assert mine[0].offset < mine[1].offset


@pytest.mark.parametrize("host", ["aiokafka", "faust"])
async def test_a_record_on_a_wrong_partition_is_refused_and_replayed_to_its_own(
    settings: BusSettings, sender: Sender, name: str, host: str
) -> None:
    """As a client of librdkafka sends it, whose own hash of keys is another."""
    (record,) = records([tally.image(name, 0)])
    assert record.key is not None
    elsewhere = (partition_of(record.key, topic_of(ImageAcquired).partitions) + 1) % 4
    async with running(hosted(name, host), settings):
        await sender.deliver([replace(record, partition=elsewhere)])
        async with asyncio.timeout(30):
            while not (mine := await _letters(settings, name)):
                await asyncio.sleep(0.2)
        assert [letter.code for letter in mine] == ["partition"]
        assert await replay_dead_letters(settings, mine) == 1
        (label,) = await labels_when(settings, name, 1)
    assert label.class_name == "after-1"


async def _letters(settings: BusSettings, name: str) -> list[Any]:
    found = await list_dead_letters(settings, IMAGES)
    return [one for one in found if one.key == name.encode() and name in one.service]


async def test_a_transient_error_holds_the_order_and_is_told(
    settings: BusSettings, sender: Sender, name: str
) -> None:
    away = True

    def step(state: Any, event: Event) -> Any:
        if away and event.subject.endswith("-2"):
            raise TransientError("the store is away")
        return tally.step(state, event)

    service = Service(name, (replace(tally.PROCESSOR, name=name, step=step),))
    async with running(service, settings) as port:
        await sender.deliver(records([tally.image(name, i) for i in range(5)]))
        async with asyncio.timeout(30):
            while "the store is away" not in str((answer := await asyncio.to_thread(health_of, port))[1]):
                await asyncio.sleep(0.05)
        assert answer[0] == 503
        away = False
        labels = await labels_when(settings, name, 5)
    assert [label.image_id for label in labels] == [f"{name}-{i}" for i in range(5)]
    assert not await _letters(settings, name)


@pytest.mark.parametrize("build", [federation.build, publisher.build], ids=["federation", "publisher"])
async def test_a_service_whose_store_is_away_when_it_starts_waits_and_says_so(
    settings: BusSettings, build: Callable[[Context], Service], tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    mount.touch()  # where the store is to be, there is no folder yet
    context = Context(ArtifactStore(str(mount / "artifacts"), cache=tmp_path / "cache"))
    port = free_port()
    process = ServiceProcess(
        "away", lambda: build(context), settings.model_copy(update={"health_port": port}), context.health
    )
    work = asyncio.create_task(process.run())
    async with asyncio.timeout(60):
        while "can't be reached" not in str((answer := await asyncio.to_thread(health_of, port))[1]):
            assert not work.done(), work.result()
            await asyncio.sleep(0.05)
        assert answer[0] == 503
        mount.unlink()
        mount.mkdir()
        while (await asyncio.to_thread(health_of, port))[0] != 200:
            assert not work.done(), work.result()
            await asyncio.sleep(0.1)
    process.stop()
    assert await work == 0


STUCK = """
import sys, time
from medloop_schemas import ImageAcquired
from medloop_services.bus.context import load_settings
from medloop_services.bus.processor import MapProcessor, Service
from medloop_services.bus.runner import run_service
from medloop_services.bus.settings import BusSettings

def stuck(events):
    print("in work", flush=True)
    time.sleep(300)

service = Service(sys.argv[1], (MapProcessor(sys.argv[1], (ImageAcquired,), (), stuck),))
sys.exit(run_service(sys.argv[1], lambda: service, load_settings(BusSettings)))
"""


async def test_a_batch_that_does_not_end_is_left_when_the_time_to_drain_is_over(
    settings: BusSettings, sender: Sender, name: str
) -> None:
    await sender.deliver(records([tally.image(name, 0)]))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", STUCK, name),
        env={**os.environ, "MEDLOOP_KAFKA": settings.kafka, "MEDLOOP_DRAIN_S": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"in work" not in await process.stdout.readline():
            pass
        process.terminate()
        assert await process.wait() == 1


async def test_a_follower_has_read_everything_before_the_first_event(
    settings: BusSettings, sender: Sender, name: str
) -> None:
    await sender.deliver(records([tally.image(f"{name}-followed", i) for i in range(50)]))
    followed: list[str] = []
    seen: list[int] = []

    def count(events: Sequence[Event]) -> list[Sequence[Event]]:
        seen.append(sum(each.startswith(f"{name}-followed") for each in followed))
        return [() for _ in events]

    service = Service(
        name,
        (MapProcessor(name, (LabelConfirmed,), (), count),),
        followers=(Follower(ImageAcquired, lambda event: followed.append(event.device_id)),),
        bootstrap=lambda: tally.step(tally.TallyState(), tally.image(name, 0))[1],
    )
    async with running(service, settings):
        async with asyncio.timeout(30):
            while not seen:
                await asyncio.sleep(0.1)
    assert seen[0] == 50


async def test_errors_in_a_row_stop_the_service_loudly(
    settings: BusSettings, sender: Sender, name: str
) -> None:
    impatient = settings.model_copy(update={"unhandled_limit": 3})
    process = ServiceProcess(name, lambda: tallying(name), impatient)
    await sender.deliver(records([tally.image(name, i, study="bug") for i in range(3)]))
    async with asyncio.timeout(60):
        assert await process.run() == 1


async def test_faust_finds_its_changelog_there_and_an_agent_that_fails_is_loud(
    settings: BusSettings, sender: Sender, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FaustService(name, replace(tally.PROCESSOR, name=name))
    partitions: list[int | None] = []
    handle = FaustProcess._handle

    async def handle_first(process: FaustProcess, event: Any) -> None:
        partitions.append(process._app.consumer.topic_partitions(changelog_topic(name)))
        if len(partitions) > 1:
            raise RuntimeError("no table can be written")
        await handle(process, event)

    monkeypatch.setattr(FaustProcess, "_handle", handle_first)
    process = ServiceProcess(name, lambda: service, settings)
    await sender.deliver(records([tally.image(name, i) for i in range(2)]))
    async with asyncio.timeout(60):
        assert await process.run() == 1
    assert partitions[0] == 4
    monkeypatch.undo()
    async with running(service, settings):
        await labels_when(settings, name, 2)


async def committed_when_all_is(settings: BusSettings, name: str) -> int:
    """Wait until a group has committed every image there is, and return how many that are."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka) as reader, asyncio.timeout(30):
        await admin.start()
        try:
            ends = await reader.end_offsets(partitions(IMAGES))
            behind = {place for place, end in ends.items() if end}
            images = sum(ends.values())
            while behind:
                done = await admin.list_consumer_group_offsets(consumer_group(name))
                behind = {place for place in behind if place not in done or done[place].offset < ends[place]}
                await asyncio.sleep(0.1)
        finally:
            await admin.close()
    return images


async def test_faust_goes_on_committing_when_it_has_committed_during_a_lookup(
    settings: BusSettings, sender: Sender, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FaustService(name, replace(tally.PROCESSOR, name=name))
    await sender.deliver(records([tally.image(name, 0)]))
    async with running(service, settings):
        before = await committed_when_all_is(settings, name)
    await sender.deliver(records([tally.image(name, 1 + i) for i in range(100)]))
    lookup, handle = AIOKafkaConsumer.seek_to_committed, FaustProcess._handle

    async def look_up_until_a_commit(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int | None]:
        found: dict[TopicPartition, int | None] = await lookup(consumer)
        while {place: await consumer.committed(place) for place in found} == found:
            await asyncio.sleep(0.01)
        return found

    async def handle_slowly(process: FaustProcess, event: Any) -> None:
        await asyncio.sleep(0.03)
        await handle(process, event)

    monkeypatch.setattr(AIOKafkaConsumer, "seek_to_committed", look_up_until_a_commit)
    monkeypatch.setattr(FaustProcess, "_handle", handle_slowly)
    async with running(service, settings):
        assert await committed_when_all_is(settings, name) == before + 100


def metric_of(port: int, line: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
        (found,) = [each for each in answer.read().decode().splitlines() if each.startswith(line)]
    return float(found.split()[-1])


async def test_faust_begins_anew_when_its_table_is_not_read_back_in_time_and_counts_it(
    settings: BusSettings, sender: Sender, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, build = FaustProcess.__init__, LoudRecovery._build_highwaters
    asked: list[LoudRecovery] = []

    async def never_at_first(recovery: LoudRecovery, *arguments: Any) -> None:
        asked.append(recovery)
        if recovery is asked[0]:
            await asyncio.Event().wait()
        await build(recovery, *arguments)

    def begin_impatiently(process: FaustProcess, *arguments: Any) -> None:
        begin(process, *arguments)
        if not asked:
            process._app.conf.broker_request_timeout = 2.5

    monkeypatch.setattr(LoudRecovery, "_build_highwaters", never_at_first)
    monkeypatch.setattr(FaustProcess, "__init__", begin_impatiently)
    service = FaustService(name, replace(tally.PROCESSOR, name=name))
    await sender.deliver(records([tally.image(name, i) for i in range(20)]))
    async with running(service, settings) as port:
        labels = await labels_when(settings, name, 20)
        counted = await asyncio.to_thread(
            metric_of, port, f'medloop_table_timeouts_total{{processor="{name}"}}'
        )
    assert counted == 1
    assert {label.sequence for label in labels} == set(range(20))


async def test_two_replicas_share_the_keys_and_take_over(
    settings: BusSettings, sender: Sender, name: str
) -> None:
    async with running(tallying(name), settings):
        async with running(tallying(name), settings):
            await sender.deliver(records([tally.image(f"{name}-{i % 8}", i // 8) for i in range(160)]))
            await labels_when(settings, name, 160)
        await sender.deliver(records([tally.image(f"{name}-{i % 8}", 20 + i // 8) for i in range(160)]))
        await labels_when(settings, name, 320)
    effect = {(label.device_id, label.sequence): label for label in await labels_of(settings, name)}
    assert len(effect) == 320
    for device in range(8):
        assert effect[f"{name}-{device}", 39].class_index == sum(range(40)) % 7


async def test_events_that_arrive_while_replicas_come_and_go_do_not_stop_the_group(
    settings: BusSettings, sender: Sender, name: str
) -> None:
    """What is fetched while partitions are given up must not be waited for by who gives them up."""
    sent = 0
    over = asyncio.Event()

    async def keep_sending() -> None:
        nonlocal sent
        while not over.is_set():
            await sender.deliver(records([tally.image(f"{name}-{i}", sent) for i in range(8)]))
            sent += 1
            await asyncio.sleep(0.01)

    async with running(tallying(name), settings):
        sending = asyncio.create_task(keep_sending())
        for _ in range(3):
            async with running(tallying(name), settings):
                await labels_when(settings, name, 8 * sent)
        over.set()
        await sending
        labels = await labels_when(settings, name, 8 * sent)
    everything = {(f"{name}-{device}", sequence) for device in range(8) for sequence in range(sent)}
    assert {(label.device_id, label.sequence) for label in labels} == everything


def test_a_taken_health_port_is_said(settings: BusSettings, broker: Any) -> None:
    from medloop_schemas import ConfigurationError

    taken = settings.model_copy(update={"health_port": broker.port})
    with pytest.raises(ConfigurationError, match="MEDLOOP_HEALTH_PORT"):
        asyncio.run(ServiceProcess("taken", lambda: tallying("taken"), taken).run())
