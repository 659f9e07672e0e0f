"""Brokers of the fault tests' own, since they kill them, and how often and how long they try."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from medloop_services.bus.broker import EmbeddedBroker
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.topics import ensure_topics

ROUNDS = int(os.environ.get("MEDLOOP_FAULT_ROUNDS", "1"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    running = EmbeddedBroker(tmp_path_factory.mktemp("broker"))
    running.start()
    asyncio.run(ensure_topics(BusSettings(kafka=running.bootstrap)))
    yield running
    running.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "round_number" in metafunc.fixturenames:
        metafunc.parametrize("round_number", range(ROUNDS))
