"""A real broker for the whole session, and what tests say to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from medloop_services.bus.broker import EmbeddedBroker
from medloop_services.bus.settings import BusSettings


@pytest.fixture(scope="session")
def broker(
    broker_of_its_own: Callable[[], AbstractContextManager[EmbeddedBroker]],
) -> Iterator[EmbeddedBroker]:
    with broker_of_its_own() as running:
        yield running


@pytest.fixture
def settings(broker: EmbeddedBroker, tmp_path: Path) -> BusSettings:
    return BusSettings(
        kafka=broker.bootstrap, artifacts=str(tmp_path / "artifacts"), session_timeout_ms=2_000, drain_s=10
    )
