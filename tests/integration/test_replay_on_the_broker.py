"""Messages sent to and recorded from a real broker: all of them, in order, each once, at the chosen rate."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from medloop_schemas import ImageAcquired, Message, topic_of
from medloop_services.bus.settings import BusSettings
from medloop_services.replay.consumer import read, read_to_end, record_topics
from medloop_services.replay.errors import RecordingError
from medloop_services.replay.producer import Sent, event_id_of, send, sent_ids
from medloop_services.replay.recording import Record, read_recording, write_recording

pytestmark = pytest.mark.integration

COUNT = 60
IMAGES = topic_of(ImageAcquired).name


@pytest.fixture
async def topic(settings: BusSettings, request: pytest.FixtureRequest) -> str:
    """A topic of each test's own."""
    name = "replay-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    await create(settings, name)
    return name


async def create(settings: BusSettings, *names: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 2, 1) for name in names])
    finally:
        await admin.close()


def messages(topic: str, count: int = COUNT, prefix: str = "id") -> list[Message]:
    return [
        Message(topic, b"key-%d" % (n % 3), b'{"n": %d}' % n, (("ce_id", f"{prefix}-{n}".encode()),))
        for n in range(count)
    ]


async def lying(settings: BusSettings, topic: str) -> list[Record]:
    return [record async for record in read_to_end(settings, [topic])]


def ids(records: Sequence[Record] | Sequence[Message]) -> list[str | None]:
    return [event_id_of(record.headers) for record in records]


async def test_what_is_sent_is_what_is_read_in_each_keys_order(settings: BusSettings, topic: str) -> None:
    sent = messages(topic)
    done: list[int] = []
    assert await send(settings, sent, progress=done.append) == Sent(COUNT, 0)
    assert sum(done) == COUNT
    found = await lying(settings, topic)
    for key in {message.key for message in sent}:
        assert [record.message() for record in found if record.key == key] == [
            message for message in sent if message.key == key
        ]


async def test_a_rate_is_never_exceeded_and_holds_for_the_paced_topics_only(
    settings: BusSettings, topic: str
) -> None:
    unpaced = f"{topic}-labels"
    await create(settings, unpaced)
    rate = 50.0
    both = [
        message for pair in zip(messages(topic, 12), messages(unpaced, 12), strict=True) for message in pair
    ]
    began = 1000 * time.time()
    await send(settings, both, rate=rate, paced_topics=[topic])
    for name in (topic, unpaced):
        times = sorted(record.timestamp for record in await lying(settings, name))
        assert len(times) == 12
        for n, sent in enumerate(times):
            assert sent >= began + 1000 * n / rate - 2, "timestamps are whole milliseconds"


async def test_a_second_replay_sends_only_what_is_missing(settings: BusSettings, topic: str) -> None:
    sent = messages(topic)
    await send(settings, sent[:25])
    there = await sent_ids(settings, [topic])
    assert await send(settings, sent, skip=there) == Sent(COUNT - 25, 25)
    found = await lying(settings, topic)
    assert sorted(map(str, ids(found))) == sorted(map(str, ids(sent)))


async def test_a_cancelled_replay_goes_on_where_it_stopped(settings: BusSettings, topic: str) -> None:
    sent = messages(topic)
    work = asyncio.create_task(send(settings, sent, rate=100.0))
    async with asyncio.timeout(60):
        while not await lying(settings, topic):
            await asyncio.sleep(0.02)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    first = await lying(settings, topic)
    assert 0 < len(first) < COUNT
    again = await send(
        settings,
        sent,
        skip=await sent_ids(settings, [topic]),
    )
    assert again == Sent(COUNT - len(first), len(first))
    found = await lying(settings, topic)
    for key in {message.key for message in sent}:
        assert ids([record for record in found if record.key == key]) == ids(
            [message for message in sent if message.key == key]
        )


async def test_a_recording_holds_the_topic_and_replays_it(
    settings: BusSettings, topic: str, tmp_path: Path
) -> None:
    await send(settings, messages(topic))
    path = tmp_path / "topic.parquet"
    assert await record_topics(settings, [topic, "replay-not-there"], path) == COUNT
    recorded = list(read_recording(path))
    assert {(each.partition, each.offset): each for each in recorded} == {
        (each.partition, each.offset): each for each in await lying(settings, topic)
    }
    assert await send(settings, (each.message() for each in recorded)) == Sent(COUNT, 0)
    assert len(await lying(settings, topic)) == 2 * COUNT


async def test_a_follower_gets_what_comes_later(settings: BusSettings, topic: str) -> None:
    await send(settings, messages(topic, 3))
    following = read(settings, [topic])
    async with asyncio.timeout(60):
        found = [await anext(following) for _ in range(3)]
        await send(settings, messages(topic, 3, prefix="later"))
        found += [await anext(following) for _ in range(3)]
    await following.aclose()  # type: ignore[attr-defined]
    assert {str(name).split("-")[0] for name in ids(found[3:])} == {"later"}


async def test_topics_that_do_not_exist_are_named(settings: BusSettings) -> None:
    with pytest.raises(RecordingError, match="replay-not-there"):
        await lying(settings, "replay-not-there")


async def test_the_command_line_is_interrupted_and_goes_on(settings: BusSettings, tmp_path: Path) -> None:
    prefix = "interrupted"
    sent = messages(IMAGES, prefix=prefix)
    path = tmp_path / "images.parquet"
    write_recording(
        path,
        [Record(IMAGES, 0, n, n, each.key, each.value, each.headers) for n, each in enumerate(sent)],
    )

    async def arrived() -> list[str]:
        found = ids(await lying(settings, IMAGES))
        return [name for name in found if name is not None and name.startswith(prefix)]

    running = replay(path, settings, "--rate", "10")
    try:
        deadline = time.monotonic() + 60
        while not await arrived():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, told = await asyncio.to_thread(running.communicate, timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130
    assert b"run the same command to go on" in told
    first = len(await arrived())
    assert 0 < first < COUNT

    again = replay(path, settings)
    _, told = await asyncio.to_thread(again.communicate, timeout=60)
    assert again.returncode == 0, told
    assert f"{COUNT - first} events acknowledged, {first} were there already".encode() in told
    assert sorted(await arrived()) == sorted(f"{prefix}-{n}" for n in range(COUNT))


def replay(path: Path, settings: BusSettings, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "medloop_services.cli", "replay", str(path), *options],
        env={**os.environ, "MEDLOOP_KAFKA": settings.kafka},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
