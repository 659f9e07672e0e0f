"""What tests of several folders start: a real broker, with every topic there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from medloop_services.bus.broker import EmbeddedBroker
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.topics import ensure_topics


@pytest.fixture(scope="session")
def broker_of_its_own(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], AbstractContextManager[EmbeddedBroker]]:
    """Starts one broker more; each folder's `broker` says how many tests share one."""

    @contextmanager
    def started() -> Iterator[EmbeddedBroker]:
        broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"))
        broker.start()
        try:
            asyncio.run(ensure_topics(BusSettings(kafka=broker.bootstrap)))
            yield broker
        finally:
            broker.stop()

    return started
