"""What a Kafka client is made with, from the settings alone."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from medloop_schemas import ConfigurationError
from medloop_services.bus.connection import client_arguments, tls_context
from medloop_services.bus.context import load_settings
from medloop_services.bus.settings import BusSettings
from medloop_services.stack import Stack

SIGNED_IN = {
    "MEDLOOP_KAFKA": "kafka.hospital:9093",
    "MEDLOOP_KAFKA_SECURITY": "SASL_SSL",
    "MEDLOOP_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "MEDLOOP_KAFKA_USERNAME": "medloop",
    "MEDLOOP_KAFKA_PASSWORD": "xyzzy",
}


def settings(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> BusSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings(BusSettings)


def test_without_security_nothing_is_encrypted_and_nobody_signs_in() -> None:
    assert client_arguments(BusSettings(kafka="localhost:1")) == {
        "bootstrap_servers": "localhost:1",
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
    }


async def test_every_kind_of_client_takes_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = client_arguments(settings(SIGNED_IN, monkeypatch))
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert arguments["sasl_plain_username"] == "medloop"
    assert arguments["sasl_plain_password"] == "xyzzy"
    for kind in (AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient):
        client: Any = kind(**arguments)
        made_with = getattr(client, "client", None) or client._client
        assert made_with._security_protocol == "SASL_SSL"
        assert made_with._ssl_context is arguments["ssl_context"]


def test_the_brokers_certificate_and_host_name_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    context = tls_context(settings(SIGNED_IN, monkeypatch))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_the_password_is_in_no_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(SIGNED_IN, monkeypatch)
    assert "xyzzy" not in f"{found!r} {found} {found.model_dump_json()}"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"MEDLOOP_KAFKA_SECURITY": "TLS"}, "MEDLOOP_KAFKA_SECURITY='TLS'"),
        ({"MEDLOOP_KAFKA_SECURITY": "SASL_SSL"}, "needs MEDLOOP_KAFKA_USERNAME and MEDLOOP_KAFKA_PASSWORD"),
        ({"MEDLOOP_KAFKA_CA_FILE": "ca.pem"}, "need MEDLOOP_KAFKA_SECURITY=SSL"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(
    variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings(variables, monkeypatch)
    assert told in str(refused.value)


@pytest.mark.parametrize("name", ["CA", "CERT"])
@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_certificate_that_cannot_be_read_is_named(
    name: str, content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    chosen = {"MEDLOOP_KAFKA_SECURITY": "SSL", f"MEDLOOP_KAFKA_{name}_FILE": str(path)}
    with pytest.raises(ConfigurationError, match=f"MEDLOOP_KAFKA_{name}_FILE={path}"):
        client_arguments(settings(chosen, monkeypatch))


def test_a_stack_with_its_own_broker_wants_no_security(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDLOOP_KAFKA", raising=False)
    monkeypatch.setenv("MEDLOOP_KAFKA_SECURITY", "SSL")
    with pytest.raises(ConfigurationError, match="MEDLOOP_KAFKA_SECURITY=SSL is for a cluster of your own"):
        Stack(tmp_path).start()
