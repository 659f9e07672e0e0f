"""What watching takes: microseconds an image, and bytes to remember of a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import orjson
from measured import EPOCH, Measured
from medloop_schemas import StatsMeasured
from medloop_services.drift_detection.panel import Panel
from ours import PANEL
from results import Cost
from watching import BATCH, Contender

ROUNDS = 7


def costs(panel: Panel, stream: Measured, contenders: Sequence[Contender]) -> Iterator[Cost]:
    """Return what the whole panel takes, from event to readings, and what each detector does.

    Args:
        panel: medloop's detectors.
        stream: images; a peer that is shown a share of the streams sees that share of these.
        contenders: the detectors.
    """
    events = _events(panel, stream)
    yield Cost(PANEL, _microseconds(lambda: _follow(panel, events), len(stream)), _bytes_of(panel, events))
    for contender in contenders:
        few = stream.take(slice(0, max(BATCH, round(contender.share * len(stream)))))

        def watch(contender: Contender = contender, few: Measured = few) -> None:
            contender.watcher.reset()
            for start in range(0, len(few), BATCH):
                contender.watcher.update(few.take(slice(start, start + BATCH)))

        # A stream that is quiet or not: both cost the same, but for what a detector forgets on an alarm.
        yield Cost(contender.name, _microseconds(watch, len(few)), _remembered(contender))


def _events(panel: Panel, stream: Measured) -> list[StatsMeasured]:
    images = stream.statistics(panel.baseline, list(range(len(stream))))
    return [
        StatsMeasured(
            time=EPOCH + timedelta(seconds=start),
            device_id="device",
            site_id="site",
            model_version="model",
            images=tuple(images[start : start + BATCH]),
        )
        for start in range(0, len(images), BATCH)
    ]


def _follow(panel: Panel, events: Sequence[StatsMeasured]) -> None:
    state = panel.initial()
    for event in events:
        state = panel.after_images(state, event)
        panel.readings(state)


def _bytes_of(panel: Panel, events: Sequence[StatsMeasured]) -> int:
    state = panel.initial()
    for event in events:
        state = panel.after_images(state, event)
    return len(orjson.dumps(state.model_dump(mode="json")))


def _remembered(contender: Contender) -> int | None:
    state = getattr(contender.watcher, "state", None)
    return None if state is None else len(orjson.dumps(state.model_dump(mode="json")))


def _microseconds(call: Callable[[], None], images: int) -> float:
    """Return the median time of a call, divided by the images that it follows."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e6 * statistics.median(seconds) / images
