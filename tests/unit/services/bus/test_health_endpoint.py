"""What a service says on its port: alive, ready, degraded, and in which sentences."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from medloop_services.bus.endpoint import Endpoint
from medloop_services.bus.health import Health
from medloop_services.bus.metrics import Metrics
from medloop_services.bus.settings import BusSettings
from medloop_services.stack import RunningService, StackState, service_statuses
from prometheus_client import Counter

OWN_COUNTER = Counter("medloop_test_of_the_endpoint", "a service's own counter")


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def port(health: Health) -> AsyncIterator[int]:
    endpoint = Endpoint("inference", health, Metrics("inference"))
    yield await endpoint.start(BusSettings(health_port=0))
    await endpoint.stop()


async def asked(port: int, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await (answer.text() if path == "/metrics" else answer.json())


async def test_a_service_is_live_before_it_is_ready(port: int, health: Health) -> None:
    assert (await asked(port, "/health/live"))[0] == 200
    status, body = await asked(port, "/health/ready")
    assert status == 503
    assert body["status"] == "unavailable"
    assert body["reasons"] == {"start": "the service is starting"}
    health.clear("start")
    assert await asked(port, "/health/ready") == (
        200,
        {"service": "inference", "status": "ok", "reasons": {}, "degraded": {}, "notes": {}},
    )


async def test_a_degraded_service_stays_live_and_ready_and_says_what_is_wrong(
    port: int, health: Health
) -> None:
    health.clear("start")
    health.degrade("package", "two is broken; one goes on")
    for path in ("/health/live", "/health/ready"):
        status, body = await asked(port, path)
        assert status == 200
        assert body["status"] == "degraded"
        assert body["degraded"] == {"package": "two is broken; one goes on"}
    assert "medloop_degraded 1.0" in (await asked(port, "/metrics"))[1]
    health.clear("package")
    assert (await asked(port, "/health/ready"))[1]["status"] == "ok"
    assert "medloop_degraded 0.0" in (await asked(port, "/metrics"))[1]


async def test_a_failed_service_is_not_live(port: int, health: Health) -> None:
    health.clear("start")
    health.fail("out of ideas")
    status, body = await asked(port, "/health/live")
    assert status == 503
    assert body["reasons"] == {"failure": "out of ideas"}


async def test_a_services_own_counters_are_exposed(port: int) -> None:
    OWN_COUNTER.inc()
    assert "medloop_test_of_the_endpoint_total 1.0" in (await asked(port, "/metrics"))[1]


async def test_the_stack_hears_what_a_service_says(port: int, health: Health) -> None:
    health.clear("start")
    health.degrade("package", "two is broken; one goes on")
    health.note("diagnosis of ward", "waiting for labels")
    state = StackState(0, "127.0.0.1:1", "memory://", {"inference": RunningService(1, port, "log", 0)})
    (status,) = await service_statuses(state)
    assert status.ready
    assert status.reasons == ()
    assert status.degraded == ("two is broken; one goes on",)
    assert status.notes == ("waiting for labels",)
