"""A real broker for the whole session, and what tests say to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from medloop_services.bus.broker import EmbeddedBroker
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.topics import ensure_topics


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    running = EmbeddedBroker(tmp_path_factory.mktemp("broker"))
    running.start()
    asyncio.run(ensure_topics(BusSettings(kafka=running.bootstrap)))
    yield running
    running.stop()


@pytest.fixture
def settings(broker: EmbeddedBroker, tmp_path: Path) -> BusSettings:
    return BusSettings(
        kafka=broker.bootstrap, artifacts=str(tmp_path / "artifacts"), session_timeout_ms=2_000, drain_s=10
    )
