"""Every registered service, as the process that is deployed, against the real broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from medloop_model import pretrained
from medloop_schemas import topic_of
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.broker import EmbeddedBroker
from medloop_services.bus.context import Context
from medloop_services.bus.dead_letters import DeadLetter, list_dead_letters
from medloop_services.bus.health import Health
from medloop_services.bus.outgoing import Outgoing
from medloop_services.bus.processor import Processor
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.topic_names import consumer_group

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

NAMES = sorted(point.name for point in entry_points(group="medloop.services"))
PATIENCE_S = 120.0
DRAIN_PATIENCE_S = 20.0
NOT_JSON = b"{oops"
MISSING = b'{"time": "2026-01-01T00:00:00Z"}'


class Running:
    """`medloop service NAME` as a process of its own."""

    def __init__(self, name: str, settings: BusSettings, folder: Path) -> None:
        self.name = name
        self.settings = settings
        self._log = folder / f"{name}.log"
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MEDLOOP_CACHE": str(folder / "cache"),
            "MEDLOOP_KAFKA": settings.kafka,
            "MEDLOOP_ARTIFACTS": settings.artifacts,
            "MEDLOOP_HEALTH_PORT": "0",
            "MEDLOOP_SUPERVISED": "1",
            "MEDLOOP_PUBLISHER_MODEL": str(pretrained.path("phantom")),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "medloop_services.cli", "service", name],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def get(self, path: str) -> tuple[int, str]:
        """Return what its own port answers: status and body; status 0 while there is none."""
        port = self._port()
        if port is None:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()
        except OSError:
            return 0, ""

    def await_ready(self) -> None:
        self.wait_until(lambda: self.get("/health/ready")[0] == 200)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._process.poll() is None, f"{self.name} ended: {self._log.read_text()}"
            assert time.monotonic() < deadline, f"{self.get('/health/ready')}\n{self._log.read_text()}"
            time.sleep(0.2)

    def stop(self) -> int:
        """Ask it to drain and return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(DRAIN_PATIENCE_S)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _port(self) -> int | None:
        for line in self._log.read_text().splitlines():
            if line.startswith("{") and (told := json.loads(line)).get("event") == "started":
                return int(told["health_port"])
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("services")


@pytest.fixture(scope="module")
def released(broker: EmbeddedBroker, folder: Path) -> BusSettings:
    """A broker on which the publisher has released the first model: what the others wait for."""
    settings = BusSettings(kafka=broker.bootstrap, artifacts=str(folder / "artifacts"))
    publisher = Running("publisher", settings, folder)
    try:
        publisher.await_ready()
    finally:
        publisher.kill()
    return settings


@pytest.fixture(scope="module", params=NAMES)
def service(request: pytest.FixtureRequest, released: BusSettings, folder: Path) -> Iterator[Running]:
    running = Running(request.param, released, folder)
    try:
        running.await_ready()
        yield running
    finally:
        running.kill()


@pytest.fixture
def processor(service: Running, folder: Path) -> Processor:
    """The service's first processor, as its `build` returns it."""
    (point,) = entry_points(group="medloop.services", name=service.name)
    context = Context(
        ArtifactStore(service.settings.artifacts, cache=folder / "cache"),
        {"MEDLOOP_PUBLISHER_MODEL": str(pretrained.path("phantom"))},
    )
    first: Processor = point.load()(context).processors[0]
    return first


def test_it_becomes_ready_and_says_so(service: Running) -> None:
    status, body = service.get("/health/ready")
    nothing: dict[str, str] = {}
    told = {"status": "ok", "reasons": nothing, "degraded": nothing, "notes": nothing}
    assert (status, json.loads(body)) == (200, {"service": service.name, **told})
    assert service.get("/health/live")[0] == 200


def test_prometheus_can_read_its_counters(service: Running) -> None:
    status, body = service.get("/metrics")
    assert status == 200
    assert f'medloop_service_info{{service="{service.name}"}} 1.0' in body


def test_invalid_messages_become_dead_letters_and_the_stream_goes_on(
    service: Running, processor: Processor
) -> None:
    topic = topic_of(processor.inputs[0]).name
    key = f"invalid-for-{service.name}".encode()
    origin = (("ce_id", b"of-the-sender"),)
    records = [Outgoing(topic, key, value, origin, partition=0) for value in (NOT_JSON, MISSING, NOT_JSON)]
    asyncio.run(deliver(service.settings, records))

    found: list[DeadLetter] = []

    def arrived() -> bool:
        letters = asyncio.run(list_dead_letters(service.settings, topic))
        found[:] = [one for one in letters if one.key == key and f"/{service.name}/" in one.service]
        return len(found) == len(records)

    service.wait_until(arrived)
    assert [letter.code for letter in found] == ["json", "missing", "json"]
    assert [letter.value for letter in found] == [NOT_JSON, MISSING, NOT_JSON]
    assert found[1].field in processor.inputs[0].model_fields
    assert all(letter.reason and letter.service.startswith("/medloop/") for letter in found)
    assert all(letter.partition == 0 and letter.headers == origin for letter in found)
    assert found[0].offset < found[1].offset < found[2].offset

    group = consumer_group(processor.name)
    service.wait_until(lambda: asyncio.run(committed(service.settings, group, topic)) == found[-1].offset + 1)
    assert service.get("/health/ready")[0] == 200
    assert (
        f'medloop_dead_letters_total{{code="json",processor="{processor.name}"}}'
        in service.get("/metrics")[1]
    )


def test_it_drains_when_told_to_end(service: Running) -> None:
    assert service.stop() == 0


async def deliver(settings: BusSettings, records: Sequence[Outgoing]) -> None:
    sender = Sender(settings, Health(), "test")
    await sender.deliver(records)
    await sender.stop()


async def committed(settings: BusSettings, group: str, topic: str) -> int:
    """Return up to where a group is done with a topic's first partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    done = {(place.topic, place.partition): kept.offset for place, kept in offsets.items()}
    return int(done.get((topic, 0), -1))
