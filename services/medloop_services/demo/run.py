"""A stream through the real stack: send it at a rate, keep the services alive, watch every topic."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medloop_schemas import (
    TOPICS,
    Event,
    ImageAcquired,
    InvalidEvent,
    LabelConfirmed,
    Message,
    TransientError,
    decode,
    encode,
    topic_of,
)

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.model_choice import ModelChoice
from medloop_services.replay.consumer import read
from medloop_services.replay.producer import send, sent_ids
from medloop_services.replay.recording import Record
from medloop_services.replay.scenario import Stream
from medloop_services.report.trace import Trace
from medloop_services.simulation import Run, publisher_settings, until_released
from medloop_services.stack import ServiceStatus, Stack, StackFailed, read_state, service_statuses

SOURCE = "/medloop/replay"
READY_PATIENCE_S = 120.0
CLOSING_PATIENCE_S = 60.0
TICK_S = 0.25
BATCH_IMAGES = 8
LISTEN_S = 1.0

Watch = Callable[[Trace, str, Sequence[str]], None]

_EVENTS: dict[str, type[Event]] = {topic.name: topic.event for topic in TOPICS}
_DEAD_LETTERS = {topic.dead_letters for topic in TOPICS}


def run_demo(
    stream: Stream, choice: ModelChoice, folder: Path, *, rate: float, watch: Watch
) -> tuple[Run, float]:
    """Run a stream through a broker and seven services; return what happened and when the stack was ready.

    Args:
        stream: images and late labels.
        choice: the model that the publisher starts with.
        folder: for the broker's data, logs and models; an earlier run's are removed.
        rate: images a second.
        watch: called a few times a second with the trace, a sentence on what is going on, and the sentences
            of services that are degraded or have something to note.

    Raises:
        BrokerUnavailable: no broker can be started.
        StackFailed: a service keeps dying or does not become ready.
    """
    for leftover in ("broker", "artifacts"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    for log in folder.glob("*.log"):
        log.unlink()
    stack = Stack(folder, environment=_environment(stream, choice))
    watch(Trace(), "starting the broker and seven services", ())
    try:
        stack.start()
        return asyncio.run(_Demo(stream, stack, rate, watch).run())
    finally:
        stack.stop()


def sentences(statuses: Sequence[ServiceStatus]) -> tuple[str, ...]:
    """Return what services say beyond being ready: first what is wrong, then what is worth knowing."""
    wrong = [f"{each.name} is degraded: {sentence}" for each in statuses for sentence in each.degraded]
    return (*wrong, *(note for each in statuses for note in each.notes))


def _environment(stream: Stream, choice: ModelChoice) -> dict[str, str]:
    # Four devices fill micro-batches of the usual 16 once in 64 images: too rarely for a stream of 1,500.
    settings = {**publisher_settings(stream, choice), "MEDLOOP_FEATURE_STATS_BATCH_IMAGES": BATCH_IMAGES}
    return {
        name: ",".join(value) if isinstance(value, list) else str(value) for name, value in settings.items()
    }


@dataclass(slots=True)
class _Demo:
    stream: Stream
    stack: Stack
    rate: float
    watch: Watch
    trace: Trace = field(default_factory=Trace)
    started: float = 0.0
    drifted: float = 0.0
    phase: str = "waiting for the services"
    notes: tuple[str, ...] = ()
    sent: Counter[type[Event]] = field(default_factory=Counter)

    async def run(self) -> tuple[Run, float]:
        keeping = asyncio.create_task(self._keep_alive())
        try:
            await self._await_ready()
            ready = self.started = time.monotonic()
            watching = asyncio.create_task(self._observe())
            listening = asyncio.create_task(self._listen())
            try:
                self.phase = f"streaming {self.rate:g} images a second"
                await self._send()
                self.phase = "the stream has ended; waiting for what is still under way"
                await self._settle(keeping, watching)
            finally:
                watching.cancel()
                listening.cancel()
        finally:
            keeping.cancel()
        released = self.trace.released
        package = ArtifactStore(self.stack.artifacts).fetch(released.package) if released else None
        return Run(self.trace, self.drifted, package), ready

    async def _keep_alive(self) -> None:
        while True:
            revived = self.stack.restart_dead()
            if revived:
                self.phase = f"{', '.join(revived)} had died and was started again"
            self.watch(self.trace, self.phase, self.notes)
            await asyncio.sleep(TICK_S)

    async def _listen(self) -> None:
        """Keep what the services say of themselves: it is on no topic, being no decision."""
        while True:
            self.notes = sentences(await self._statuses())
            await asyncio.sleep(LISTEN_S)

    async def _statuses(self) -> list[ServiceStatus]:
        state = read_state(self.stack.folder)
        return await service_statuses(state) if state else []

    async def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_PATIENCE_S
        while True:
            statuses = await self._statuses()
            waiting = [each for each in statuses if not each.ready]
            if statuses and not waiting:
                return
            self.phase = "; ".join(f"{each.name}: {', '.join(each.reasons)}" for each in waiting)
            if time.monotonic() > deadline:
                raise StackFailed(f"not ready after {READY_PATIENCE_S:.0f} s: {self.phase}")
            await asyncio.sleep(TICK_S)

    async def _send(self) -> None:
        inputs = [topic_of(ImageAcquired).name, topic_of(LabelConfirmed).name]
        skip: set[str] = set()
        while True:
            try:
                await send(
                    self.stack.connection,
                    self._messages(),
                    rate=self.rate,
                    paced_topics=[topic_of(ImageAcquired).name],
                    skip=skip,
                )
            except TransientError as error:
                self.phase = str(error)
                await asyncio.sleep(1.0)
                skip = await self._sent(inputs) or skip
            else:
                return

    def _messages(self) -> Iterator[Message]:
        self.sent.clear()
        for event in until_released(self.stream, self.trace):
            self.sent[type(event)] += 1
            yield encode(event, SOURCE)

    async def _sent(self, topics: list[str]) -> set[str]:
        try:
            return await sent_ids(self.stack.connection, topics)
        except TransientError:
            return set()

    async def _observe(self) -> None:
        topics = [*_EVENTS, *_DEAD_LETTERS]
        async for record in read(self.stack.connection, topics):
            self._fold(record)

    def _fold(self, record: Record) -> None:
        if record.topic in _DEAD_LETTERS:
            headers = {name: value.decode() for name, value in record.headers}
            self.trace.dead_letters.add(
                (
                    headers["medloop-topic"],
                    int(headers["medloop-partition"]),
                    int(headers["medloop-offset"]),
                )
            )
            return
        try:
            event = decode(_EVENTS[record.topic], record.value)
        except InvalidEvent:
            return  # its consumer has sent it to the dead letters, where it is counted
        seconds = time.monotonic() - self.started
        self.trace.observe(event, seconds)
        if not self.drifted and len(self.trace.images) >= self.stream.drift_at:
            self.drifted = seconds

    async def _settle(self, *tasks: asyncio.Task[None]) -> None:
        """Wait until nothing is outstanding and the loop has closed, or nothing has happened for long."""
        quiet_since, seen = time.monotonic(), -1
        while time.monotonic() - quiet_since < CLOSING_PATIENCE_S:
            for task in tasks:
                if task.done():
                    task.result()
            trace = self.trace
            arrived = (len(trace.images), len(trace.labels))
            complete = arrived == (self.sent[ImageAcquired], self.sent[LabelConfirmed]) and trace.lost == 0
            if complete and trace.released is not None:
                return
            progress = len(trace.served) + len(trace.truth) + len(trace.moments)
            if progress != seen:
                quiet_since, seen = time.monotonic(), progress
            await asyncio.sleep(TICK_S)
