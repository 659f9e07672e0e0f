"""A service on a real broker that lets nobody in without a password, by TLS or not."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tally
from aiokafka.errors import KafkaError
from medloop_schemas import ImageAcquired, encode, topic_of
from medloop_services.bus.broker import HOST, EmbeddedBroker, free_port
from medloop_services.bus.connection import tls_context
from medloop_services.bus.dead_letters import list_dead_letters
from medloop_services.bus.faust_service import FaustService
from medloop_services.bus.health import Health
from medloop_services.bus.liveness import broker_answers
from medloop_services.bus.outgoing import Outgoing, outgoing
from medloop_services.bus.processor import Service
from medloop_services.bus.runner import ServiceProcess
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.topics import ensure_topics
from medloop_services.replay.producer import send, sent_ids
from pydantic import SecretStr

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

IMAGES = topic_of(ImageAcquired).name
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with the broker's key and its certificate, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, which makes the broker's certificate")
    folder = tmp_path_factory.mktemp("certificate")
    files = {"-keyout": folder / "key.pem", "-out": folder / "certificate.pem"}
    names = ["-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{HOST}"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    for option, path in files.items():
        command += [option, str(path)]
    subprocess.run(command, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text("".join(path.read_text() for path in files.values()))
    return both


@pytest.fixture(scope="module")
def by_protocol(
    certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, BusSettings]]:
    """The settings that get into one broker by each of two protocols."""
    ports = {"SASL_PLAINTEXT": free_port(), "SASL_SSL": free_port()}
    controller = free_port()
    outside = ",".join(f"{protocol}://{HOST}:{port}" for protocol, port in ports.items())
    properties = {
        "listeners": f"{outside},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": outside,
        "listener.security.protocol.map": ",".join(
            ("CONTROLLER:PLAINTEXT", *(f"{protocol}:{protocol}" for protocol in ports))
        ),
        "inter.broker.listener.name": "SASL_PLAINTEXT",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "PLAIN",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificate),
    }
    for protocol in ports:
        properties[f"listener.name.{protocol.lower()}.plain.sasl.jaas.config"] = (
            f'{LOGIN} username="broker" password="between" user_broker="between" user_medloop="open sesame";'
        )
    folder = tmp_path_factory.mktemp("secured")
    broker = EmbeddedBroker(folder, ports["SASL_PLAINTEXT"], controller, properties)
    broker.start()
    signed_in = BusSettings(
        kafka=broker.bootstrap,
        kafka_security="SASL_PLAINTEXT",
        kafka_username="medloop",
        kafka_password=SecretStr("open sesame"),
        session_timeout_ms=2_000,
    )
    encrypted = {
        "kafka": f"{HOST}:{ports['SASL_SSL']}",
        "kafka_security": "SASL_SSL",
        "kafka_ca_file": certificate,
    }
    yield {"SASL_PLAINTEXT": signed_in, "SASL_SSL": signed_in.model_copy(update=encrypted)}
    broker.stop()


@pytest.fixture(params=["SASL_PLAINTEXT", "SASL_SSL"])
def secured(request: pytest.FixtureRequest, by_protocol: dict[str, BusSettings]) -> BusSettings:
    return by_protocol[request.param]


def keyed(name: str) -> Service:
    return Service(name, (replace(tally.PROCESSOR, name=name),))


def on_faust(name: str) -> FaustService:
    return FaustService(name, replace(tally.PROCESSOR, name=name))


@pytest.mark.parametrize("build", [keyed, on_faust])
async def test_a_service_does_its_work_behind_a_password(
    secured: BusSettings, build: Callable[[str], Service | FaustService]
) -> None:
    name = f"secured-{build.__name__}-{secured.kafka_security.lower()}".replace("_", "-")
    process = ServiceProcess(name, lambda: build(name), secured)
    work = asyncio.create_task(process.run())
    sender = Sender(secured, Health(), "test")
    images = [tally.image(name, sequence) for sequence in range(5)]
    async with asyncio.timeout(60):
        await ensure_topics(secured)
        await sender.deliver([outgoing(image, "/test") for image in images])
        await sender.deliver([Outgoing(IMAGES, name.encode(), b"{oops")])
        while not [letter for letter in await list_dead_letters(secured) if name in letter.service]:
            assert not work.done(), work.result()
            await asyncio.sleep(0.2)
    process.stop()
    assert await work == 0
    await sender.stop()


async def test_a_stream_is_replayed_and_read_behind_a_password(secured: BusSettings) -> None:
    await ensure_topics(secured)
    images = [tally.image(f"replayed-{secured.kafka_security.lower()}", sequence) for sequence in range(3)]
    await send(secured, [encode(image, "/test") for image in images])
    assert {image.event_id for image in images} <= await sent_ids(secured, [IMAGES])


async def test_a_broker_is_seen_before_anybody_has_signed_in(secured: BusSettings) -> None:
    assert await broker_answers(secured.kafka, tls_context(secured))


async def test_a_wrong_password_is_an_error_of_the_connection(secured: BusSettings) -> None:
    wrong = secured.model_copy(update={"kafka_password": SecretStr("open barley")})
    with pytest.raises(KafkaError):
        await ensure_topics(wrong)


async def test_a_broker_that_nobody_vouches_for_is_not_spoken_to(
    by_protocol: dict[str, BusSettings],
) -> None:
    trusting_others = by_protocol["SASL_SSL"].model_copy(update={"kafka_ca_file": None})
    assert not await broker_answers(trusting_others.kafka, tls_context(trusting_others))
    with pytest.raises(KafkaError):
        await ensure_topics(trusting_others)
