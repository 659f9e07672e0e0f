"""Faust's recovery: a broker that does not answer in time is said, and is no order to stop."""

from __future__ import annotations

import asyncio

import pytest
from faust.tables.recovery import Recovery, ServiceStopped
from medloop_services.bus.faust_application import FaustApplication
from medloop_services.bus.faust_recovery import TableNotReadBack


@pytest.fixture
async def recovery() -> Recovery:
    application = FaustApplication(
        "recovering", broker="kafka://127.0.0.1:1", store="memory://", web_enabled=False
    )
    return application.tables.recovery


async def test_what_takes_too_long_is_an_error(recovery: Recovery) -> None:
    with pytest.raises(TableNotReadBack, match="not read back"):
        await recovery._wait(asyncio.sleep(60), timeout=0.01)


async def test_what_is_done_in_time_is_none(recovery: Recovery) -> None:
    answered = asyncio.Event()

    async def answer() -> None:
        answered.set()

    await recovery._wait(answer(), timeout=60)
    assert answered.is_set()


async def test_an_order_to_stop_is_obeyed(recovery: Recovery) -> None:
    recovery._stopped.set()
    with pytest.raises(ServiceStopped):
        await recovery._wait(asyncio.sleep(60), timeout=60)
