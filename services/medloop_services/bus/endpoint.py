"""A service's own HTTP port: /health/live, /health/ready and /metrics."""

from __future__ import annotations

import errno

from aiohttp import web
from medloop_schemas import ConfigurationError
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from medloop_services.bus.health import Health
from medloop_services.bus.metrics import Metrics
from medloop_services.bus.settings import BusSettings


class Endpoint:
    """Serves a process's health and metrics."""

    def __init__(self, service: str, health: Health, metrics: Metrics) -> None:
        self._service = service
        self._health = health
        self._metrics = metrics
        application = web.Application()
        application.router.add_get("/health/live", self._live)
        application.router.add_get("/health/ready", self._ready)
        application.router.add_get("/metrics", self._exposition)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, settings: BusSettings) -> int:
        """Listen, and return the port.

        Raises:
            ConfigurationError: the port is taken.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, settings.health_host, settings.health_port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise ConfigurationError(
                f"MEDLOOP_HEALTH_PORT={settings.health_port}: {error.strerror}; "
                "choose another, or 0 for a free one"
            ) from None
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    async def _live(self, _request: web.Request) -> web.Response:
        return self._answer(self._health.live)

    async def _ready(self, _request: web.Request) -> web.Response:
        return self._answer(self._health.ready)

    def _answer(self, good: bool) -> web.Response:
        degraded = self._health.degraded
        body = {
            "service": self._service,
            "status": ("degraded" if degraded else "ok") if good else "unavailable",
            "reasons": self._health.reasons,
            "degraded": degraded,
            "notes": self._health.notes,
        }
        return web.json_response(body, status=200 if good else 503)

    async def _exposition(self, _request: web.Request) -> web.Response:
        self._metrics.degraded.set(len(self._health.degraded))
        # A service's own counters, and the process's, are in the library's registry.
        body = generate_latest(self._metrics.registry) + generate_latest(REGISTRY)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
