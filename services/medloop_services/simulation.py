"""`medloop simulate`: the loop in one process on a drifting stream, without a broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medloop_schemas import Event, ImageAcquired, LabelConfirmed

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
from medloop_services.loop import InProcessLoop, services
from medloop_services.model_choice import ModelChoice
from medloop_services.replay.scenario import Stream
from medloop_services.report.trace import Trace


@dataclass(frozen=True, slots=True)
class Run:
    """A stream's trace, when it drifted by the trace's clock, and the released model's file, if any."""

    trace: Trace
    drift_seconds: float
    released: Path | None


TAIL_LABELS = 96
"""Labels seen after a release, so that one sees what it was worth; then a run's stream ends."""


def until_released(stream: Stream, trace: Trace) -> Iterator[ImageAcquired | LabelConfirmed]:
    """Return a stream's events until a new version has been stable for a while in the trace."""
    images = 0
    last: int | None = None
    for event in stream.events():
        if last is None and trace.released is not None:
            last = images + stream.settings.label_delay * len(stream.devices) + TAIL_LABELS
        if last is not None and images >= last:
            return
        images += isinstance(event, ImageAcquired)
        yield event


def publisher_settings(stream: Stream, choice: ModelChoice) -> dict[str, Any]:
    """Return the variables that make the publisher start a stream's site with a chosen model."""
    chosen: dict[str, Any] = {
        "MEDLOOP_PUBLISHER_SITES": [stream.settings.site],
        "MEDLOOP_PUBLISHER_MODEL": str(choice.model),
    }
    if choice.teacher is not None:
        chosen["MEDLOOP_PUBLISHER_TEACHER"] = str(choice.teacher)
    return chosen


def simulate(
    stream: Stream,
    choice: ModelChoice,
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    watch: Callable[[Trace], None] = lambda trace: None,
) -> Run:
    """Run a stream through the services' cores until soon after a release.

    Args:
        stream: images and late labels.
        choice: the model it starts with.
        folder: for model files.
        settings: of the services, by variable name; win over the environment.
        watch: called after every image.

    Returns:
        The same trace for the same stream, model and settings, but for its seconds.
    """
    store = ArtifactStore((folder / "artifacts").resolve().as_uri(), cache=folder / "cache")
    context = Context(store, overrides={**publisher_settings(stream, choice), **(settings or {})})
    trace = Trace()
    started = time.monotonic()

    def observe(event: Event) -> None:
        trace.observe(event, time.monotonic() - started)

    loop = InProcessLoop(services(context), observe)
    drifted = 0.0
    for event in until_released(stream, trace):
        loop.publish([event])
        if isinstance(event, ImageAcquired):
            if len(trace.images) == stream.drift_at:
                drifted = time.monotonic() - started
            watch(trace)
    for number, _ in enumerate(loop.dead_letters):
        trace.dead_letters.add(("in-process", 0, number))
    released = trace.released
    return Run(trace, drifted, store.fetch(released.package) if released else None)
