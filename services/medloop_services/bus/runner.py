"""Runs one service as a process: health, topics, what it follows, its processors; drains on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable, Coroutine
from importlib.metadata import entry_points
from typing import Any

import structlog
from aiokafka.errors import KafkaError
from medloop_schemas import ConfigurationError, TransientError

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.connection import tls_context
from medloop_services.bus.context import Context, load_settings
from medloop_services.bus.endpoint import Endpoint
from medloop_services.bus.faust_service import FaustService
from medloop_services.bus.follow import Following
from medloop_services.bus.guard import die_with_parent
from medloop_services.bus.health import Health
from medloop_services.bus.kafka_loop import ProcessorLoop
from medloop_services.bus.liveness import broker_answers
from medloop_services.bus.logs import configure_logs
from medloop_services.bus.metrics import Metrics
from medloop_services.bus.outgoing import outgoing
from medloop_services.bus.processor import Service
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.topics import changelog_topics, ensure_topics, state_topics

log = structlog.get_logger()

VERSION = "0.1.0"
BROKER_CHECK_S = 1.0
GATE_POLL_S = 0.2
SUPERVISED = "MEDLOOP_SUPERVISED"
"""Set by a stack whose services must not outlive it."""
EXIT_FAILED = 1
EXIT_CONFIGURATION = 2

AnyService = Service | FaustService


def run_service_named(name: str) -> int:
    """Build the service registered under a name and run it; return the process's exit status.

    0: stopped in order. 1: gave up after unexpected errors. 2: a setting is wrong, said on standard error.
    """
    if os.environ.get(SUPERVISED):
        die_with_parent()
    try:
        settings = load_settings(BusSettings)
        configure_logs(name, settings.log_level)
        context = Context(ArtifactStore(settings.artifacts))
        registered = _registered(name)
        return run_service(name, lambda: registered(context), settings, context.health)
    except ConfigurationError as error:
        print(f"medloop service {name}: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION


def run_service(
    name: str, build: Callable[[], AnyService], settings: BusSettings, health: Health | None = None
) -> int:
    """Run a service until SIGTERM or Ctrl-C; return the process's exit status.

    Args:
        name: the service's.
        build: returns what to run; called again while what it needs is away (TransientError).
        settings: the bus's.
        health: of the context that the service is built from, if it says anything there.

    Raises:
        ConfigurationError: a setting is wrong, or doesn't fit the cluster.
    """
    process = ServiceProcess(name, build, settings, health)

    async def until_stopped() -> int:
        status = await process.run()
        if process.unfinished:
            # asyncio would wait for the batch's thread, however long that takes.
            sys.stdout.flush()
            os._exit(status)
        return status

    return asyncio.run(until_stopped())


class ServiceProcess:
    """One service at work in this process; arguments as of `run_service`.

    `unfinished` is whether it was stopped with a batch in work that did not end in time.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], AnyService],
        settings: BusSettings,
        health: Health | None = None,
    ) -> None:
        self._build = build
        self._settings = settings
        self._source = f"/medloop/{name}/{VERSION}"
        self._health = health or Health()
        self._metrics = Metrics(name)
        self._endpoint = Endpoint(name, self._health, self._metrics)
        self._stop = asyncio.Event()
        self.unfinished = False

    def stop(self) -> None:
        """Begin to drain."""
        self._stop.set()

    async def run(self) -> int:
        """Run until stopped; return the exit status."""
        tls = tls_context(self._settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        port = await self._endpoint.start(self._settings)
        log.info("started", kafka=self._settings.kafka, health_port=port)
        watch = asyncio.create_task(self._watch_broker(tls))
        work = asyncio.create_task(self._work())
        try:
            return await self._until_done(work)
        finally:
            watch.cancel()
            await self._endpoint.stop()
            log.info("stopped")

    async def _until_done(self, work: asyncio.Task[None]) -> int:
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        self._health.block("stop", "draining: the batch in work is being finished")
        await asyncio.wait({work}, timeout=self._settings.drain_s)
        stopping.cancel()
        if not work.done():
            # Not committed, so the next start does it again; waiting longer would not finish it either.
            self.unfinished = True
            log.warning("the batch in work was not finished in time and will be done again")
            work.cancel()
            await asyncio.wait({work}, timeout=self._settings.drain_s)
            return EXIT_FAILED
        error = _first(work.exception())
        if error is None:
            return 0
        self._health.fail(str(error))
        if isinstance(error, ConfigurationError):
            raise error
        log.error("the service gave up", error=f"{type(error).__name__}: {error}")
        return EXIT_FAILED

    async def _work(self) -> None:
        service = await self._built()
        if service is None:
            return
        self._health.block("start", "making sure that the topics exist")
        topics = changelog_topics if isinstance(service, FaustService) else state_topics
        own = topics(service.processors, self._settings.replication)
        if not await self._patiently(lambda: ensure_topics(self._settings, own)):
            return
        if isinstance(service, FaustService):
            await self._work_on_faust(service)
            return
        await self._send_bootstrap(service)
        following = Following(service.followers, self._settings, self._health, self._metrics)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(following.run(self._stop))
            if not await self._gate(service, following):
                return
            self._health.clear("start")
            for processor in service.processors:
                loop = ProcessorLoop(processor, self._settings, self._health, self._metrics, self._source)
                tasks.create_task(self._whole(loop.run(self._stop)))

    async def _built(self) -> AnyService | None:
        """Build the service beside the event loop, so that its health can be asked; None if stopped."""
        wait = self._settings.retry_first_s
        while not self._stop.is_set():
            try:
                return await asyncio.to_thread(self._build)
            except TransientError as error:
                self._health.block("start", f"{error}; trying again")
                log.warning("waiting", reason=str(error))
                await asyncio.sleep(wait)
                wait = min(2 * wait, self._settings.retry_longest_s)
        return None

    async def _work_on_faust(self, service: FaustService) -> None:
        # An extra of its own: the other services run where Faust is not installed.
        from medloop_services.bus.faust_runner import run_with_faust  # noqa: PLC0415

        await run_with_faust(
            service, self._settings, self._health, self._metrics, self._source, stop=self._stop
        )

    async def _whole(self, work: Coroutine[Any, Any, None]) -> None:
        """A processor that has failed takes its siblings with it, in order."""
        try:
            await work
        except BaseException:
            self._stop.set()
            raise

    async def _send_bootstrap(self, service: Service) -> None:
        sender = Sender(self._settings, self._health, "bootstrap")
        try:
            await sender.deliver([outgoing(event, self._source) for event in service.bootstrap()])
        finally:
            await sender.stop()

    async def _gate(self, service: Service, following: Following) -> bool:
        """Wait until what is followed has been read and the service lacks nothing; False if stopped."""
        while not self._stop.is_set():
            missing = service.waiting_for() if following.caught_up.is_set() else "reading what it follows"
            if missing is None:
                return True
            self._health.block("start", missing)
            await asyncio.sleep(GATE_POLL_S)
        return False

    async def _patiently(self, attempt: Callable[[], Awaitable[None]]) -> bool:
        wait = self._settings.retry_first_s
        while not self._stop.is_set():
            try:
                await attempt()
            except (KafkaError, OSError) as error:
                self._health.block("start", f"the broker does not answer ({error}); trying again")
                await asyncio.sleep(wait)
                wait = min(2 * wait, self._settings.retry_longest_s)
            else:
                return True
        return False

    async def _watch_broker(self, tls: ssl.SSLContext | None) -> None:
        while True:
            if await broker_answers(self._settings.kafka, tls):
                self._health.clear("broker")
            else:
                self._health.block("broker", f"no broker answers at {self._settings.kafka}; waiting for it")
            await asyncio.sleep(BROKER_CHECK_S)


def _first(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _registered(name: str) -> Callable[[Context], AnyService]:
    registered = {point.name: point for point in entry_points(group="medloop.services")}
    if name not in registered:
        raise ConfigurationError(
            f"no service is called {name!r}; there are: {', '.join(sorted(registered)) or 'none'}"
        )
    build: Callable[[Context], AnyService] = registered[name].load()
    return build
