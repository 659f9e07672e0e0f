"""The events of a whole loop, recorded in one process, and what each service reads of them, in order.

The cores may depend on the order between topics where a decision meets the stream: a release and the images
served after it, a candidate and the examples that judge it, a micro-batch and the labels counted after it.
There the recorded order is kept, by sending in stretches and waiting for a commit between them. Where a core
must not depend on it (feature_stats, and the learner's pairing) a stretch is long.

Pairing hands on examples in an order that differs from run to run, so the learner is taught at one site, in
the recorded order, while pairing works for another.

Of a federation the loop makes nothing: its sites send updates of their own (`federated_sites.py`), and those
are recorded once too. No weight depends on a site's name, so under other names they are merged alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from federated_sites import QUORUM, federated, members_of, public_keys, signed
from medloop_model import pretrained
from medloop_schemas import (
    AdaptationRequested,
    CandidateTrained,
    Event,
    ImageAcquired,
    LabelConfirmed,
    PredictionMade,
    ReleaseChanged,
    UpdateSubmitted,
)
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
from medloop_services.bus.processor import KeyedProcessor, Service
from medloop_services.federation import app as federation
from medloop_services.loop import InProcessLoop, services
from medloop_services.replay.dataset import draw_dataset
from medloop_services.replay.scenario import build_scenario
from medloop_services.replay.settings import ScenarioSettings

LABEL_DELAY = 16
"""Images of a micro-batch: a label comes after the batch of its image, and is a signal of its own."""
IMAGES_BEFORE = 160
WHOLE_LOOP = 420
"""Images in which a candidate is trained, judged and tried."""

RECORDED_SITE = "recorded-site"
PAIRED = "-paired"
SETTINGS = {
    "MEDLOOP_PUBLISHER_MODEL": str(pretrained.path("phantom")),
    "MEDLOOP_PUBLISHER_MIN_NEW": "12",
    "MEDLOOP_PUBLISHER_MIN_OLD": "8",
    "MEDLOOP_PUBLISHER_CONFIDENCE": "0.51",
    "MEDLOOP_PUBLISHER_TOLERANCE": "0.2",
    "MEDLOOP_PUBLISHER_CANARY_EXAMPLES": "8",
    "MEDLOOP_PUBLISHER_CANARY_TOLERANCE": "0.5",
    "MEDLOOP_PUBLISHER_MEMORY": "64",
    "MEDLOOP_DRIFT_DETECTION_LABELS_PER_SIGNAL": "1",
    "MEDLOOP_EVENT_AGGREGATION_SIGNALS_PER_REPEAT": "256",
    "MEDLOOP_ONLINE_LEARNER_LABELS_SHALLOW": "16",
    "MEDLOOP_ONLINE_LEARNER_LABELS_DISTIL": "16",
    "MEDLOOP_ONLINE_LEARNER_BATCH_SIZE": "8",
    "MEDLOOP_ONLINE_LEARNER_CHECKPOINT_EVERY": "1",
    "MEDLOOP_ONLINE_LEARNER_MEMORY": "32",
    "MEDLOOP_ONLINE_LEARNER_OPEN_MEMORY": "64",
    "MEDLOOP_ONLINE_LEARNER_ATTEMPTS": "2",
    "MEDLOOP_FEDERATION_MODEL": str(pretrained.path("phantom")),
    "MEDLOOP_FEDERATION_QUORUM": str(QUORUM),
}

RARE = (AdaptationRequested, CandidateTrained, ReleaseChanged)
"""Decisions: what comes before one and what comes after it must not change places."""
PAIRING_INPUTS = (ImageAcquired, PredictionMade, LabelConfirmed)

Recorded = TypeVar("Recorded", bound=Event)

Identity = tuple[str, str, str]
"""Event type, key, event id: image ids, and so event ids, are the same in every round."""


def identity(event: Event) -> Identity:
    return event.event_type, event.key, event.event_id


def settings_for(sites: Sequence[str]) -> dict[str, str]:
    """Return the variables of a loop at some sites; each is also the name of a federation."""
    members = [member for site in sites for member in members_of(site)]
    return {
        **SETTINGS,
        "MEDLOOP_PUBLISHER_SITES": ",".join(sites),
        "MEDLOOP_FEDERATION_SITES": public_keys(members),
    }


def store_in(folder: Path) -> ArtifactStore:
    return ArtifactStore((folder / "artifacts").as_uri(), cache=folder / "cache")


def context(folder: Path, sites: Sequence[str]) -> Context:
    return Context(store_in(folder), settings_for(sites))


def record(folder: Path, events: int) -> list[Event]:
    """Return every event of a whole loop, in order: at least so many for each service to read."""
    images = max(events + 4 * LABEL_DELAY, WHOLE_LOOP)  # the last ones are not in a whole micro-batch
    wanted = ScenarioSettings(
        site=RECORDED_SITE,
        images_before=IMAGES_BEFORE,
        images_after=images - IMAGES_BEFORE,
        label_delay=LABEL_DELAY,
    )
    recorded: list[Event] = []
    loop = InProcessLoop(services(context(folder, [RECORDED_SITE])), recorded.append)
    for event in build_scenario(draw_dataset(), "data-drift", wanted).events():
        loop.publish([event])
    assert {event.event_type for event in recorded} >= {kind.event_type for kind in RARE}
    return recorded


def moved(event: Recorded, site: str) -> Recorded:
    """Return the same event as of another site and its devices."""
    return type(event).model_validate_json(event.model_dump_json().replace(RECORDED_SITE, site))


@cache
def recorded_updates(folder: Path, count: int) -> list[UpdateSubmitted]:
    """Return so many updates of a federation, made once: each is a file, and goes on from a merge."""
    (processor,) = federation.build(context(folder, [RECORDED_SITE])).processors
    assert isinstance(processor, KeyedProcessor)
    return federated(processor, RECORDED_SITE, count, store_in(folder))


def played(recording: Sequence[Event], service: Service, site: str, count: int, folder: Path) -> list[Event]:
    """Return a service's inputs as of a site, in the recorded order, at most about a count."""
    if service.name == "federation":
        return [signed(moved(update, site)) for update in recorded_updates(folder, count)]
    inputs = {kind for processor in service.processors for kind in processor.inputs}
    inputs |= {follower.event for follower in service.followers}
    if service.name == "publisher":
        inputs -= {ReleaseChanged}  # it makes them
    elif service.name == "feature_stats":
        recording = [event for event in recording if type(event) in inputs][:count]
    elif service.name == "online_learner":
        half = max(count // 2, WHOLE_LOOP)
        paired = [event for event in recording if isinstance(event, PAIRING_INPUTS)][:half]
        taught = [event for event in recording if type(event) in inputs - {*PAIRING_INPUTS}][:half]
        return [
            *(moved(event, f"{site}{PAIRED}") for event in paired),
            *(moved(event, site) for event in taught),
        ]
    return [moved(event, site) for event in recording if type(event) in inputs]


def stretches(events: Sequence[Event], service: Service) -> Iterator[list[Event]]:
    """Divide events where what was sent must have been committed before the next is."""
    stretch: list[Event] = []
    for event in events:
        if isinstance(event, RARE):
            yield from waves(stretch, service)
            yield [event]
            stretch = []
        else:
            stretch.append(event)
    yield from waves(stretch, service)


def waves(stretch: Sequence[Event], service: Service) -> Iterator[list[Event]]:
    """Divide a stretch so that none has one key on two topics, unless the core takes any order."""
    if service.name != "drift_detection":
        if stretch:
            yield list(stretch)
        return
    found: list[list[Event]] = []
    last: dict[str, tuple[int, type[Event]]] = {}
    for event in stretch:
        wave, kind = last.get(event.key, (0, type(event)))
        wave += kind is not type(event)
        last[event.key] = wave, type(event)
        found += [[] for _ in range(wave + 1 - len(found))]
        found[wave].append(event)
    yield from found
