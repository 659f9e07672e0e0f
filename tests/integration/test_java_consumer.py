"""Consumers that know nothing of medloop's code read predictions from what the published contract says."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from medloop_model import pretrained
from medloop_schemas import Event, Frame, ImageAcquired, ReleaseChanged
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.broker import EmbeddedBroker
from medloop_services.bus.context import Context
from medloop_services.bus.health import Health
from medloop_services.bus.java import find_java
from medloop_services.bus.kafka_jars import class_path
from medloop_services.bus.outgoing import outgoing
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.topics import ensure_topics
from medloop_services.inference.app import build as build_inference
from medloop_services.publisher.app import build as build_publisher
from medloop_services.replay.consumer import read_to_end

pytestmark = pytest.mark.integration

CONTRACT = Path(__file__).parents[2] / "schemas" / "contract"
TOOLS = Path(__file__).with_name("kafka_tools.lock")
DEVICES = ("contract-a", "contract-b", "contract-c")
COUNT = 24
FIELDS = "\x1f"
"""Separates key, headers and value: a control character, which JSON escapes."""


@dataclass(frozen=True)
class Read:
    """One record as a stranger sees it: text."""

    key: str
    headers: dict[str, str]
    value: str


@pytest.fixture(scope="module")
def asyncapi() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CONTRACT / "asyncapi.json").read_bytes())
    return document


@pytest.fixture(scope="module")
def published(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """Predictions that inference has made with the shipped model, on the broker."""
    folder = tmp_path_factory.mktemp("artifacts")
    predictions = predict(Context(ArtifactStore(str(folder), cache=folder / "cache"), phantom_model()))
    asyncio.run(publish(BusSettings(kafka=broker.bootstrap), predictions))
    return predictions


def phantom_model() -> dict[str, str]:
    return {"MEDLOOP_PUBLISHER_MODEL": str(pretrained.path("phantom")), "MEDLOOP_PUBLISHER_SITES": "contract"}


def predict(context: Context) -> list[Event]:
    inference = build_inference(context)
    (follower,) = (one for one in inference.followers if one.event is ReleaseChanged)
    for event in build_publisher(context).bootstrap():
        if isinstance(event, follower.event):
            follower.apply(event)
    (processor,) = inference.processors
    outcomes = processor.map(images())  # type: ignore[union-attr]
    return [event for outcome in outcomes for event in outcome]  # type: ignore[union-attr]


def images() -> list[Event]:
    draw = np.random.default_rng(4)
    return [
        ImageAcquired(
            time=datetime(2026, 1, 1, 0, 0, index, tzinfo=UTC),
            image_id=f"contract-image-{index}",
            device_id=DEVICES[index % len(DEVICES)],
            site_id="contract",
            study_id=hashlib.sha256(bytes([index])).hexdigest()[:32],
            sequence=index // len(DEVICES),
            frame=Frame.inline(draw.integers(0, 256, 28 * 28, np.uint8).tobytes(), height=28, width=28),
        )
        for index in range(COUNT)
    ]


async def publish(settings: BusSettings, events: Sequence[Event]) -> None:
    await ensure_topics(settings)
    sender = Sender(settings, Health(), "contract")
    await sender.deliver([outgoing(event, "/medloop/inference/0.1.0") for event in events])
    await sender.stop()


def read_from_java(bootstrap: str, topic: str) -> list[Read]:
    command = [
        str(find_java()),
        "-Xmx128m",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        f"{class_path(TOOLS)}:{class_path()}",
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", bootstrap, "--topic", topic, "--from-beginning", "--timeout-ms", "15000"),
        *("--max-messages", str(asyncio.run(count(bootstrap, topic)))),
        *("--property", "print.key=true", "--property", f"key.separator={FIELDS}"),
        *("--property", "print.headers=true", "--property", f"headers.separator={FIELDS}"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return [java_record(line) for line in ran.stdout.splitlines()]


async def count(bootstrap: str, topic: str) -> int:
    """Return how many records lie on a topic: other tests' too, and without a number the tool never ends."""
    return len([record async for record in read_to_end(BusSettings(kafka=bootstrap), [topic])])


def java_record(line: str) -> Read:
    *headers, key, value = line.split(FIELDS)
    return Read(key, dict(header.split(":", 1) for header in headers), value)


def read_with_kcat(bootstrap: str, topic: str) -> list[Read]:
    kcat = shutil.which("kcat")
    if kcat is None:
        pytest.skip(
            "kcat is not installed: `apt-get install kcat` (Debian, Ubuntu) or `brew install kcat` (macOS)"
        )
    ran = subprocess.run(
        [kcat, "-C", "-b", bootstrap, "-t", topic, "-o", "beginning", "-e", "-q", "-J"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [kcat_record(json.loads(line)) for line in ran.stdout.splitlines()]


def kcat_record(told: dict[str, Any]) -> Read:
    names, values = told["headers"][::2], told["headers"][1::2]
    return Read(told["key"], dict(zip(names, values, strict=True)), told["payload"])


@pytest.mark.parametrize("read", [read_from_java, read_with_kcat])
def test_predictions_are_read_by_the_published_contract_alone(
    broker: EmbeddedBroker,
    asyncapi: dict[str, Any],
    published: list[Event],
    read: Callable[[str, str], list[Read]],
) -> None:
    channel = asyncapi["channels"]["predictions"]
    message = asyncapi["components"]["messages"][channel["messages"]["PredictionMade"]["$ref"].split("/")[-1]]
    payload = json.loads((CONTRACT / message["payload"]["$ref"]).read_bytes())
    values = jsonschema.Draft202012Validator(payload)
    headers = jsonschema.Draft202012Validator(message["headers"])
    key_field = message["bindings"]["kafka"]["key"]["description"].split(",")[0]

    records = read(broker.bootstrap, channel["address"])
    mine = [record for record in records if record.key.startswith("contract-")]
    assert len(mine) == len(published) == COUNT
    for record in mine:
        value = json.loads(record.value)
        values.validate(value)
        headers.validate(record.headers)
        assert record.key == value[key_field]
    assert {json.loads(record.value)["image_id"] for record in mine} == {event.subject for event in published}
    for device in DEVICES:
        order = [json.loads(record.value)["sequence"] for record in mine if record.key == device]
        assert order == sorted(order), "one device's predictions keep their order"


def test_a_value_that_breaks_the_contract_would_be_noticed(
    asyncapi: dict[str, Any], published: list[Event]
) -> None:
    message = asyncapi["components"]["messages"]["PredictionMade"]
    payload = json.loads((CONTRACT / message["payload"]["$ref"]).read_bytes())
    value = json.loads(outgoing(published[0], "/test").value or b"")
    validator = jsonschema.Draft202012Validator(payload)
    assert validator.is_valid(value)
    for field in payload["required"]:
        assert not validator.is_valid({name: value[name] for name in value if name != field}), field
