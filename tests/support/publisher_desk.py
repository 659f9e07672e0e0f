"""A publisher's core on its own, and what it may be sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
from medloop_schemas import (
    Artifact,
    AuditRecorded,
    CandidateTrained,
    Diagnosis,
    Event,
    ExampleLabelled,
    Frame,
    InvalidEvent,
    ReleaseChanged,
    ReleaseStage,
    Strategy,
    TransientError,
)
from medloop_services.publisher.calibration import Answers
from medloop_services.publisher.origin import FirstReleases
from medloop_services.publisher.rollout import Rollout, canary_devices
from medloop_services.publisher.settings import PublisherSettings
from medloop_services.publisher.state import PublisherState

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
DEVICES = ("ward/scanner-1", "ward/scanner-2")
ONSET = 1000
SETTINGS = PublisherSettings(
    min_new=12, min_old=8, memory=64, canary_fraction=0.5, canary_examples=6, canary_tolerance=0.2
)
NAMES = ("normal", "opacity", "nodule")


def artifact(name: str) -> Artifact:
    return Artifact(url=f"memory://{name}", sha256=hashlib.sha256(name.encode()).hexdigest(), size=1)


FIRST = ReleaseChanged(
    time=EPOCH,
    site_id="ward",
    number=0,
    version="ward-0",
    stage=ReleaseStage.STABLE,
    package=artifact("ward-0"),
    teacher=artifact("teacher"),
    classes=("normal", "opacity"),
    reason="the first",
)


def candidate(
    version: str = "ward-1",
    *,
    attempt: int = 1,
    base: str = "ward-0",
    diagnosis: Diagnosis = Diagnosis.DATA_DRIFT,
    classes: tuple[str, ...] = ("normal", "opacity"),
) -> CandidateTrained:
    return CandidateTrained(
        time=EPOCH,
        site_id="ward",
        request_id=f"request-{base}-{diagnosis}",
        attempt=attempt,
        version=version,
        base_version=base,
        package=artifact(version),
        diagnosis=diagnosis,
        strategy=Strategy.SHALLOW_EWC,
        onset=dict.fromkeys(DEVICES, ONSET),
        classes=classes,
        labels_used=16,
        updates=6,
        changed_codes=0.01,
        loss_first=1.0,
        loss_last=0.5,
    )


CANARY_DEVICE = canary_devices(candidate(), SETTINGS.canary_fraction)[0]


def example(
    sequence: int,
    *,
    study: str | None = None,
    device: str = DEVICES[0],
    name: str | None = None,
    served_by: str = "ward-0",
    predicted: int = 0,
    image: str | None = None,
    revision: int = 1,
) -> ExampleLabelled:
    label = name or NAMES[sequence % 2]
    old = sequence < ONSET
    # The frame says to the scripted evaluator what the image shows and in which domain it is.
    pixels = bytes([NAMES.index(label), old])
    return ExampleLabelled(
        time=EPOCH + timedelta(minutes=sequence),
        image_id=image or f"{device}-{sequence}",
        device_id=device,
        site_id="ward",
        study_id=study or f"study-{sequence}",
        image_sequence=sequence,
        label_sequence=sequence,
        revision=revision,
        class_index=NAMES.index(label),
        class_name=label,
        predicted_class=predicted,
        model_version=served_by,
        frame=Frame.inline(pixels, height=1, width=2),
    )


def drawn(start: int, *, held: bool) -> Iterator[int]:
    sequence = start
    while True:
        if example(sequence).held_back is held:
            yield sequence
        sequence += 1


def held(count: int, start: int) -> list[ExampleLabelled]:
    return [example(sequence) for sequence, _ in zip(drawn(start, held=True), range(count), strict=False)]


@dataclass
class ScriptedEvaluator:
    """A package named after its talents: which images each version gets right, and how sure it is."""

    right: dict[str, set[str]] = field(
        default_factory=lambda: {"ward-0": {"old"}, "ward-1": {"old", "new"}, "ward-2": {"old", "new"}}
    )
    announced: dict[str, tuple[str, ...]] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    away: bool = False
    asked: int = 0

    def classes(self, package: Artifact) -> tuple[str, ...]:
        version = package.url.removeprefix("memory://")
        if version in self.broken:
            raise InvalidEvent("corrupt-checkpoint", "package", f"{version} is cut short")
        return self.announced.get(version, ("normal", "opacity"))

    def answer(self, package: Artifact, frames: Sequence[Frame]) -> Answers:
        if self.away:
            raise TransientError("the store is away")
        self.asked += 1
        version = package.url.removeprefix("memory://")
        names = self.announced.get(version, ("normal", "opacity"))
        said = [names.index(self._says(version, names, *frame.pixels())) for frame in frames]
        confidence = self.confidence.get(version, 1.0)
        others = (1 - confidence) / (len(names) - 1)
        probabilities = np.full((len(frames), len(names)), others, np.float32)
        probabilities[np.arange(len(frames)), said] = confidence
        return Answers(names, probabilities)

    def _says(self, version: str, names: tuple[str, ...], shown: int, old: int) -> str:
        truth = NAMES[shown]
        if truth not in names:
            return names[0]
        can = ("old" if old else "new") in self.right[version]
        return truth if can else names[names.index(truth) - 1]


@dataclass
class Desk:
    """A publisher on its own: sends events in, collects what comes out."""

    evaluator: ScriptedEvaluator = field(default_factory=ScriptedEvaluator)
    settings: PublisherSettings = SETTINGS
    state: PublisherState = field(default_factory=lambda: FirstReleases({"ward": FIRST}).initial("ward"))
    outputs: list[Event] = field(default_factory=list)

    def send(self, *events: Event) -> Desk:
        rollout = Rollout(self.settings, self.evaluator)
        for event in events:
            self.state, made = rollout.step(self.state, event)
            self.outputs += made
        return self

    @property
    def releases(self) -> list[ReleaseChanged]:
        return [made for made in self.outputs if isinstance(made, ReleaseChanged)]

    @property
    def records(self) -> list[AuditRecorded]:
        return [made for made in self.outputs if isinstance(made, AuditRecorded)]

    @property
    def chain(self) -> list[AuditRecorded]:
        """All records, with that of the first release."""
        return [
            event for event in FirstReleases({"ward": FIRST}).bootstrap() if isinstance(event, AuditRecorded)
        ] + self.records

    @property
    def decisions(self) -> list[str]:
        return [record.decision for record in self.records]


OLD = held(16, 0)
NEW = held(16, ONSET)


def canary_examples(
    right: Sequence[bool], start: int = 5000, version: str = "ward-1"
) -> list[ExampleLabelled]:
    """Images a canary device served, none held back; which it got right."""
    sequences = [sequence for sequence, _ in zip(drawn(start, held=False), right, strict=False)]
    return [
        example(
            sequence,
            device=CANARY_DEVICE,
            served_by=version,
            predicted=sequence % 2 if correct else 1 - sequence % 2,
        )
        for sequence, correct in zip(sequences, right, strict=True)
    ]
