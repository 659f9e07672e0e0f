"""Faust's application: nothing buffered is thrown away, and it signs in as every other client does."""

from __future__ import annotations

import faust
import pytest
from faust.types.auth import AuthProtocol
from medloop_services.bus.faust_application import FaustApplication, credentials
from medloop_services.bus.settings import BusSettings
from pydantic import SecretStr


@pytest.fixture
async def application() -> FaustApplication:
    return FaustApplication("buffering", broker="kafka://127.0.0.1:1", store="memory://", web_enabled=False)


async def test_resuming_a_running_flow_keeps_what_is_buffered(application: FaustApplication) -> None:
    queue = application.FlowControlQueue(maxsize=4, clear_on_resume=True)
    application.flow_control.resume()
    queue.put_nowait("event")
    application.flow_control.resume()
    assert queue.qsize() == 1


async def test_resuming_a_stopped_flow_empties_the_buffer(application: FaustApplication) -> None:
    queue = application.FlowControlQueue(maxsize=4, clear_on_resume=True)
    application.flow_control.resume()
    queue.put_nowait("of partitions that were taken away")
    application.flow_control.suspend()
    application.flow_control.resume()
    assert queue.qsize() == 0


def test_a_plain_connection_needs_no_credentials() -> None:
    assert credentials(BusSettings()) is None


def test_a_user_signs_in_with_the_mechanism_of_the_settings() -> None:
    made = credentials(
        BusSettings(
            kafka_security="SASL_PLAINTEXT",
            kafka_sasl_mechanism="SCRAM-SHA-256",
            kafka_username="ward",
            kafka_password=SecretStr("secret"),
        )
    )
    assert isinstance(made, faust.SASLCredentials)
    assert made.protocol is AuthProtocol.SASL_PLAINTEXT
    assert (made.username, made.password, made.mechanism.value) == ("ward", "secret", "SCRAM-SHA-256")


def test_a_user_signs_in_by_tls() -> None:
    made = credentials(
        BusSettings(kafka_security="SASL_SSL", kafka_username="ward", kafka_password=SecretStr("secret"))
    )
    assert isinstance(made, faust.SASLCredentials)
    assert made.protocol is AuthProtocol.SASL_SSL


def test_tls_alone_checks_the_broker() -> None:
    made = credentials(BusSettings(kafka_security="SSL"))
    assert isinstance(made, faust.SSLCredentials)
    assert made.context.check_hostname
