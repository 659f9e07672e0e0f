"""A learner on its own, whose trainer writes down what it is asked for and trains nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import nan

from medloop_schemas import (
    AdaptationRequested,
    Artifact,
    CandidateTrained,
    Diagnosis,
    Event,
    ExampleLabelled,
    Frame,
    InvalidEvent,
    ReleaseChanged,
    ReleaseStage,
    RoundClosed,
    Strategy,
    TransientError,
    UpdateSubmitted,
)
from medloop_services.bus.catalog import ReleaseCatalog
from medloop_services.online_learner.examples import Material
from medloop_services.online_learner.learning import Learning, Trained, Update
from medloop_services.online_learner.settings import LearnerSettings
from medloop_services.online_learner.state import Adaptation, LearningState

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
DEVICE = "ward/scanner-1"
SETTINGS = LearnerSettings(
    memory=16, batch_size=2, labels_shallow=4, labels_distil=4, labels_expand=2, attempts=2
)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def artifact(name: str) -> Artifact:
    return Artifact(url=f"memory://{name}", sha256=digest(name), size=1)


def release(number: int, version: str, stage: ReleaseStage = ReleaseStage.STABLE) -> ReleaseChanged:
    return ReleaseChanged(
        time=EPOCH,
        site_id="ward",
        number=number,
        version=version,
        stage=stage,
        package=artifact(version),
        classes=("normal", "opacity"),
        reason="a test",
    )


def request(diagnosis: Diagnosis = Diagnosis.DATA_DRIFT, base: str = "ward-0") -> AdaptationRequested:
    strategy = {
        Diagnosis.DATA_DRIFT: Strategy.SHALLOW_EWC,
        Diagnosis.CONCEPT_DRIFT: Strategy.DISTIL_ALL,
        Diagnosis.NEW_CLASS: Strategy.EXPAND_HEAD,
    }[diagnosis]
    return AdaptationRequested(
        time=EPOCH,
        site_id="ward",
        diagnosis=diagnosis,
        strategy=strategy,
        base_version=base,
        onset={DEVICE: 100},
        new_classes={2: "nodule"} if diagnosis is Diagnosis.NEW_CLASS else {},
        detector="mmd",
        evidence=("a test",),
    )


def example(
    sequence: int,
    *,
    name: str = "normal",
    study: str | None = None,
    image: str | None = None,
    revision: int = 1,
    device: str = DEVICE,
) -> ExampleLabelled:
    return ExampleLabelled(
        time=EPOCH + timedelta(minutes=sequence),
        image_id=image or f"{device}-{sequence}",
        device_id=device,
        site_id="ward",
        study_id=study or f"study-{sequence}",
        image_sequence=sequence,
        label_sequence=sequence,
        revision=revision,
        class_index=0,
        class_name=name,
        predicted_class=0,
        model_version="ward-0",
        frame=Frame.inline(b"abcd", height=2, width=2),
    )


def trainable(start: int) -> Iterable[ExampleLabelled]:
    sequence = start
    while True:
        if not example(sequence).held_back:
            yield example(sequence)
        sequence += 1


def new_examples(count: int, start: int = 100) -> list[ExampleLabelled]:
    return [taken for taken, _ in zip(trainable(start), range(count), strict=False)]


@dataclass
class ScribeTrainer:
    """Writes down what it was asked to train on; a candidate's version depends on exactly that."""

    batches: list[tuple[str, ...]] = field(default_factory=list)
    finished: list[Material] = field(default_factory=list)
    away: bool = False
    unreadable: str | None = None
    broken: str | None = None
    undone: int = 0
    """Mini-batches that end in no finite number, the first ones."""
    corrected: list[tuple[str, ...]] = field(default_factory=list)
    federation: str = ""
    unmergeable: bool = False

    def check(self, taken: ExampleLabelled) -> None:
        if taken.image_id == self.unreadable:
            raise InvalidEvent("base64", "frame", "a test")

    def open(self, adaptation: Adaptation, examples: Material) -> None:
        if adaptation.base.version == self.broken:
            raise InvalidEvent("corrupt-checkpoint", "base_version", "a test")

    def update(self, adaptation: Adaptation, examples: Material) -> Update:
        if self.away:
            raise TransientError("the store is away")
        batch = examples.new[adaptation.trained : adaptation.trained + SETTINGS.batch_size]
        names = tuple(entry.example.image_id for entry in batch)
        self.batches.append(names)
        told = examples.mini_batch(adaptation.trained, SETTINGS.batch_size)
        self.corrected.append(tuple(each.image_id for each in told if each.image_id not in names))
        if len(self.batches) <= self.undone:
            return Update(nan, adaptation.steps, changed_codes=0.0, quarantined=2 * len(self.batches))
        return Update(
            1.0 / (1 + adaptation.trained),
            steps=adaptation.steps + 3,
            changed_codes=0.01,
            corrected=sum(map(len, self.corrected)),
            quarantined=2 * self.undone,
        )

    def finish(self, adaptation: Adaptation, examples: Material) -> Trained:
        return self._stored("alone", adaptation, examples)

    def submit(self, adaptation: Adaptation, examples: Material, now: datetime) -> UpdateSubmitted | None:
        if self.unmergeable:
            raise InvalidEvent("shape", "federation", "a test")
        if not self.federation:
            return None
        return UpdateSubmitted(
            time=now,
            federation=self.federation,
            site_id=adaptation.request.site_id,
            request_id=adaptation.request.event_id,
            attempt=adaptation.attempt,
            base_version=adaptation.base.version,
            base_sha256=digest(adaptation.base.version),
            samples=adaptation.labels_used,
            payload=artifact(f"update-{adaptation.trained}"),
            signature="0" * 128,
        )

    def take_up(self, adaptation: Adaptation, examples: Material, closed: RoundClosed) -> Trained:
        if closed.merged.url == self.broken:
            raise InvalidEvent("corrupt-checkpoint", "merged", "a test")
        return self._stored(f"round-{closed.number}", adaptation, examples)

    def _stored(self, how: str, adaptation: Adaptation, examples: Material) -> Trained:
        self.finished.append(examples)
        seen = [how, *(entry.example.event_id for entry in examples.new[: adaptation.trained])]
        seen += [kept.event_id for kept in examples.old]
        version = "ward-" + digest(repr(seen))[:12]
        return Trained(version=version, package=artifact(version))


@dataclass
class Bench:
    """A learner on its own: sends events in, collects what comes out."""

    trainer: ScribeTrainer = field(default_factory=ScribeTrainer)
    catalog: ReleaseCatalog = field(default_factory=ReleaseCatalog)
    state: LearningState = field(default_factory=LearningState)
    candidates: list[CandidateTrained] = field(default_factory=list)
    updates: list[UpdateSubmitted] = field(default_factory=list)
    settings: LearnerSettings = SETTINGS

    def send(self, *events: Event) -> Bench:
        learning = Learning(self.settings, self.trainer, self.catalog.release_of)
        for event in events:
            if isinstance(event, ReleaseChanged):
                self.catalog.apply(event)
            self.state, outputs = learning.step(self.state, event)
            self.candidates += [made for made in outputs if isinstance(made, CandidateTrained)]
            self.updates += [made for made in outputs if isinstance(made, UpdateSubmitted)]
        return self

    @property
    def adaptation(self) -> Adaptation:
        assert self.state.adaptation is not None
        return self.state.adaptation
