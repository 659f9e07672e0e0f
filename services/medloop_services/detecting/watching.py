"""Runs images through inference, feature_stats and drift_detection in one process, nothing behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medloop_model.checkpoint import load_package
from medloop_model.errors import ModelError
from medloop_model.statistics import Reference
from medloop_schemas import (
    Event,
    ImageAcquired,
    ImageStatistics,
    InvalidEvent,
    MedloopError,
    StatsMeasured,
)

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
from medloop_services.bus.frames import frame_of
from medloop_services.detecting.source import Source
from medloop_services.loop import InProcessLoop, measuring, monitoring
from medloop_services.replay.split import Split
from medloop_services.report.standard_scores import Standard
from medloop_services.report.trace import Trace
from medloop_services.report.where import Where, locate

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
HELD_OUT = "held-out"
"""Site and device under which held-out images are measured; both end with the call."""


class NothingWatched(MedloopError):
    """Not one image of a stream could be watched; the text says why."""

    code = "nothing-watched"


@dataclass(frozen=True, eq=False)
class Watched:
    """What monitoring made of a source.

    Attributes:
        where: its alarms and changes.
        refused: images and labels that no service could handle, and why.
    """

    where: Where
    refused: tuple[tuple[Event, InvalidEvent], ...]


def reference_of(model: Path) -> Reference:
    """Return the monitoring reference in a package.

    Raises:
        ModelError: the package can't be read, or has no reference.
    """
    try:
        return Reference.from_tensors(load_package(model, parts=("reference",)).reference)
    except ValueError as error:
        raise ModelError(f"{model}: {error}") from error


def watch(
    source: Source,
    model: Path,
    folder: Path,
    settings: Mapping[str, Any],
    advance: Callable[[int], None] = lambda _: None,
) -> Watched:
    """Watch a stream with one model and return where drift is.

    Args:
        source: images and labels.
        model: a package with a reference.
        folder: for the artifact store.
        settings: of the services, by variable name.
        advance: told how many more images are done.

    Raises:
        NothingWatched: no image fits the model, or there are too few.
    """
    trace = Trace()
    context = _context(model, folder, source.sites, settings)
    loop = InProcessLoop(monitoring(context), lambda event: trace.observe(event, 0.0))
    for event in source.events():
        loop.publish([event])
        advance(isinstance(event, ImageAcquired))
    trace.dead_letters.update(("in-process", 0, number) for number, _ in enumerate(loop.dead_letters))
    version = trace.base.version if trace.base else ""
    standard = Standard.of(reference_of(model))
    where = locate(trace, standard, version, source.known, source.known_position)
    if not where.devices:
        why = first_reason(loop.dead_letters) or "no device has as many images as a micro-batch"
        raise NothingWatched(
            f"{source.name}: none of {source.images} images could be watched ({why}); "
            "name the data or the model that the images are for"
        )
    return Watched(where, tuple(loop.dead_letters))


def measure(
    split: Split, model: Path, folder: Path, advance: Callable[[int], None] = lambda _: None
) -> list[ImageStatistics]:
    """Return the statistics of images in their order, each measured alone.

    Args:
        split: the images.
        model: a package.
        folder: for the artifact store.
        advance: told how many more are done.

    Raises:
        InvalidEvent: an image that the model can't be shown.
    """
    measured: list[ImageStatistics] = []

    def collect(event: Event) -> None:
        if isinstance(event, StatsMeasured):
            measured.extend(event.images)

    alone = {"MEDLOOP_FEATURE_STATS_BATCH_IMAGES": 1}
    loop = InProcessLoop(measuring(_context(model, folder, (HELD_OUT,), alone)), collect)
    for row in range(len(split)):
        loop.publish([_acquired(split, row)])
        if loop.dead_letters:
            raise loop.dead_letters[0][1]
        advance(1)
    return measured


def _context(model: Path, folder: Path, sites: Sequence[str], settings: Mapping[str, Any]) -> Context:
    store = ArtifactStore((folder / "artifacts").resolve().as_uri(), cache=folder / "cache")
    served = {"MEDLOOP_PUBLISHER_SITES": list(sites), "MEDLOOP_PUBLISHER_MODEL": str(model)}
    return Context(store, overrides={**served, **settings})


def _acquired(split: Split, row: int) -> ImageAcquired:
    return ImageAcquired(
        time=EPOCH,
        image_id=f"image-{row}",
        device_id=HELD_OUT,
        site_id=HELD_OUT,
        study_id=f"study-{row}",
        sequence=row,
        frame=frame_of(split.images[row]),
    )


def first_reason(refused: Iterable[tuple[Event, InvalidEvent]]) -> str | None:
    """Return why the first event was refused, if any was."""
    return next((f"{type(event).__name__}: {reason}" for event, reason in refused), None)
