"""Brokers of the fault tests' own, since they kill them, and how often and how long they try."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from medloop_services.bus.broker import EmbeddedBroker

ROUNDS = int(os.environ.get("MEDLOOP_FAULT_ROUNDS", "1"))


@pytest.fixture(scope="module")
def broker(
    broker_of_its_own: Callable[[], AbstractContextManager[EmbeddedBroker]],
) -> Iterator[EmbeddedBroker]:
    with broker_of_its_own() as running:
        yield running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "round_number" in metafunc.fixturenames:
        metafunc.parametrize("round_number", range(ROUNDS))
