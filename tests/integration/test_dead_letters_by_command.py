"""`medloop dlq list|show|replay` on a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from medloop_schemas import ImageAcquired, InvalidEvent, topic_of
from medloop_services.bus.broker import EmbeddedBroker
from medloop_services.bus.dead_letter import dead_letter
from medloop_services.bus.health import Health
from medloop_services.bus.received import Received
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.replay.consumer import read_to_end

pytestmark = pytest.mark.integration

TOPIC = topic_of(ImageAcquired).name
KEY = b"dlq-by-command"
VALUE = b'{"cut": '
OFFSET = 4_000_000_000
"""Beyond every record that other tests send: the place is this test's own."""
PLACE = f"{TOPIC}:1:{OFFSET}"


@pytest.fixture(scope="module")
def refused(broker: EmbeddedBroker) -> None:
    reason = InvalidEvent("json", "", "not JSON: unexpected [/end]")
    received = Received(TOPIC, 1, OFFSET, KEY, VALUE, (("ce_id", b"cut-1"),), reason)

    async def deliver() -> None:
        sender = Sender(BusSettings(kafka=broker.bootstrap), Health(), "test")
        await sender.deliver([dead_letter(received, reason, "/medloop/inference/0.1.0")])
        await sender.stop()

    asyncio.run(deliver())


def dlq(broker: EmbeddedBroker, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medloop_services.cli", "dlq", *map(str, arguments)],
        env={**os.environ, "MEDLOOP_KAFKA": broker.bootstrap, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def written(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_bytes())
    return found


@pytest.mark.usefixtures("refused")
def test_list_says_where_from_by_whom_and_why(broker: EmbeddedBroker, tmp_path: Path) -> None:
    ran = dlq(broker, "list", "--topic", TOPIC, "--json", tmp_path / "letters.json")
    assert ran.returncode == 0, ran.stderr
    assert PLACE in ran.stdout
    (mine,) = [each for each in written(tmp_path / "letters.json") if each["place"] == PLACE]
    assert mine["service"] == "/medloop/inference/0.1.0"
    assert (mine["code"], mine["field"], mine["reason"]) == ("json", "", "not JSON: unexpected [/end]")


@pytest.mark.usefixtures("refused")
def test_show_prints_the_record_as_it_came(broker: EmbeddedBroker, tmp_path: Path) -> None:
    ran = dlq(broker, "show", PLACE, "--json", tmp_path / "letter.json")
    assert ran.returncode == 0, ran.stderr
    for part in ("not JSON: unexpected [/end]", "ce_id: cut-1", VALUE.decode(), KEY.decode()):
        assert part in ran.stdout
    (letter,) = written(tmp_path / "letter.json")
    assert letter["headers"] == {"ce_id": "cut-1"}
    assert letter["value"] == VALUE.decode()


@pytest.mark.usefixtures("refused")
async def test_replay_sends_the_record_back_to_its_topic(broker: EmbeddedBroker) -> None:
    ran = await asyncio.to_thread(dlq, broker, "replay", PLACE)
    assert ran.returncode == 0, ran.stderr
    assert "1 records sent again" in ran.stderr
    found = [
        record
        async for record in read_to_end(BusSettings(kafka=broker.bootstrap), [TOPIC])
        if record.key == KEY
    ]
    assert [(record.partition, record.value) for record in found] == [(1, VALUE)]
    assert ("ce_id", b"cut-1") in found[0].headers


def test_what_is_not_there_is_said(broker: EmbeddedBroker) -> None:
    for arguments in (("show", f"{TOPIC}:0:{OFFSET}"), ("list", "--topic", "medloop.imags.v1")):
        ran = dlq(broker, *arguments)
        assert ran.returncode == 2
        assert arguments[-1] in ran.stderr
