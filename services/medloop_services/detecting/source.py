"""What is watched: a recording made by `medloop record`, or a scenario that `medloop simulate` knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medloop_schemas import TOPICS, Event, ImageAcquired, InvalidEvent, LabelConfirmed, decode

from medloop_services.replay.errors import RecordingError
from medloop_services.replay.recording import read_recording
from medloop_services.replay.scenario import Stream

RECORDING = ".parquet"
"""Ending by which a recording is told from a scenario's name."""


@dataclass(frozen=True)
class Source:
    """Images and labels in order.

    Attributes:
        name: of the scenario or the recording's file.
        events: returns them, from the start each time.
        images: how many.
        sites: of the images.
        known: device → sequence of its first changed image; empty where nobody knows.
        known_position: images of the whole stream before that change.
        unreadable: records of a recording that hold no valid event.
    """

    name: str
    events: Callable[[], Iterable[Event]]
    images: int
    sites: tuple[str, ...]
    known: Mapping[str, int]
    known_position: int | None
    unreadable: int = 0


def from_scenario(stream: Stream) -> Source:
    """Return a made stream; its change is known."""
    changes = stream.drift_at < len(stream.shown)
    return Source(
        name=stream.scenario.value,
        events=stream.events,
        images=len(stream.shown),
        sites=(stream.settings.site,),
        known=stream.onset if changes else {},
        known_position=stream.drift_at if changes else None,
    )


def from_recording(path: Path) -> Source:
    """Return a recording's images and labels; other topics in it are passed over.

    Raises:
        RecordingError: the file is missing, is no recording, or holds no image.
    """
    kinds = {topic.name: topic.event for topic in TOPICS if topic.event in (ImageAcquired, LabelConfirmed)}
    events: list[Event] = []
    unreadable = 0
    for record in read_recording(path):
        if record.topic in kinds:
            try:
                events.append(decode(kinds[record.topic], record.value))
            except InvalidEvent:
                unreadable += 1
    images = [event for event in events if isinstance(event, ImageAcquired)]
    if not images:
        topic = next(name for name, kind in kinds.items() if kind is ImageAcquired)
        raise RecordingError(f"{path} holds no image; record {topic} with `medloop record {path.name}`")
    return Source(
        name=path.name,
        events=lambda: events,
        images=len(images),
        sites=tuple(sorted({image.site_id for image in images})),
        known={},
        known_position=None,
        unreadable=unreadable,
    )
