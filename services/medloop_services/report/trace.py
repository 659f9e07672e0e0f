"""The trace of a stream: every event folded into what a person wants to see, in whatever order it comes.

Positions are counted in images of the whole stream and found by event time, so that the same recording gives
the same trace whether it ran over Kafka or in one process.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from functools import singledispatchmethod

from medloop_schemas import (
    AdaptationRequested,
    AuditRecorded,
    CandidateTrained,
    DriftDiagnosed,
    DriftSignalled,
    Event,
    ExampleLabelled,
    Frame,
    ImageAcquired,
    LabelConfirmed,
    LabelRequested,
    PredictionMade,
    ReleaseChanged,
    ReleaseStage,
    StatsMeasured,
)


@dataclass(frozen=True, slots=True)
class Served:
    """What was served for one image."""

    version: str
    predicted_class: int


@dataclass(frozen=True, slots=True)
class Level:
    """How near its threshold one layer of one device came: 1 is the threshold."""

    position: int
    device_id: str
    layer: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of the loop: where in the stream and when by the wall clock (seconds since the trace began)."""

    name: str
    position: int
    seconds: float
    text: str


@dataclass(slots=True)
class Trace:
    """Folds events as they are seen; `seconds` is the observer's own clock."""

    times: list[datetime] = field(default_factory=list)
    served: dict[str, Served] = field(default_factory=dict)
    withheld: set[str] = field(default_factory=set)
    truth: dict[str, int] = field(default_factory=dict)
    right: dict[str, bool] = field(default_factory=dict)
    labels: dict[str, LabelConfirmed] = field(default_factory=dict)
    images: dict[str, datetime] = field(default_factory=dict)
    frames: dict[str, Frame] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)
    stats: dict[str, StatsMeasured] = field(default_factory=dict)
    signals: dict[str, DriftSignalled] = field(default_factory=dict)
    measured_twice: set[str] = field(default_factory=set)
    levels: list[Level] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    version_of: dict[str, str] = field(default_factory=dict)
    requests: dict[str, AdaptationRequested] = field(default_factory=dict)
    candidates: dict[str, CandidateTrained] = field(default_factory=dict)
    releases: dict[int, ReleaseChanged] = field(default_factory=dict)
    audit: dict[int, AuditRecorded] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)
    wire: Counter[str] = field(default_factory=Counter)
    dead_letters: set[tuple[str, int, int]] = field(default_factory=set)

    def observe(self, event: Event, seconds: float) -> None:
        """Fold one event; a repeat changes only the wire count."""
        self.wire[event.event_type] += 1
        self._fold(event, seconds)

    def position(self, time: datetime) -> int:
        """Return how many images had been taken by a moment of event time."""
        return bisect_right(self.times, time)

    @singledispatchmethod
    def _fold(self, event: Event, seconds: float) -> None:
        raise TypeError(f"no fold for {type(event).__name__}")

    @_fold.register
    def _(self, event: ImageAcquired, seconds: float) -> None:
        if event.image_id not in self.images:
            self.images[event.image_id] = event.time
            self.frames[event.image_id] = event.frame
            if self.times and event.time < self.times[-1]:
                self.times.insert(bisect_right(self.times, event.time), event.time)
            else:
                self.times.append(event.time)

    @_fold.register
    def _(self, event: LabelConfirmed, seconds: float) -> None:
        known = self.labels.setdefault(event.image_id, event)
        if event.revision > known.revision:
            self.labels[event.image_id] = event

    @_fold.register
    def _(self, event: PredictionMade, seconds: float) -> None:
        if event.withheld:
            self.withheld.add(event.image_id)
            return
        self.served[event.image_id] = Served(event.model_version, event.predicted_class)
        self.version_of[event.device_id] = f"{event.model_version} ({event.stage.value})"

    @_fold.register
    def _(self, event: StatsMeasured, seconds: float) -> None:
        self.stats[event.event_id] = event
        for image in event.images:
            if self.measured.setdefault(image.image_id, event.event_id) != event.event_id:
                self.measured_twice.add(image.image_id)

    @_fold.register
    def _(self, event: DriftSignalled, seconds: float) -> None:
        self.signals[event.event_id] = event
        position = self.position(event.time)
        highest: dict[str, float] = {}
        for reading in event.readings:
            if reading.threshold > 0:
                ratio = reading.value / reading.threshold
                highest[reading.layer.value] = max(highest.get(reading.layer.value, 0.0), ratio)
        self.levels.extend(Level(position, event.device_id, layer, ratio) for layer, ratio in highest.items())
        alarmed = [reading for reading in event.readings if reading.alarmed]
        if alarmed and not any(moment.name == "alarm" for moment in self.moments):
            first = alarmed[0]
            text = f"{first.detector} on {first.statistic}: {first.value:.3g} over {first.threshold:.3g}"
            self._mark("alarm", event, seconds, text)

    @_fold.register(DriftDiagnosed)
    @_fold.register(LabelRequested)
    def _(self, event: DriftDiagnosed | LabelRequested, seconds: float) -> None:
        """Counted on the wire; what is drawn is the request that a diagnosis leads to."""

    @_fold.register
    def _(self, event: AdaptationRequested, seconds: float) -> None:
        if event.event_id not in self.requests:
            self.requests[event.event_id] = event
            self._mark("diagnosis", event, seconds, f"{event.diagnosis.value}: {'; '.join(event.evidence)}")

    @_fold.register
    def _(self, event: ExampleLabelled, seconds: float) -> None:
        self.truth[event.image_id] = event.class_index
        self.right[event.image_id] = event.class_index == event.predicted_class

    @_fold.register
    def _(self, event: CandidateTrained, seconds: float) -> None:
        if event.event_id in self.candidates:
            self._compare(self.candidates[event.event_id], event)
        else:
            self.candidates[event.event_id] = event
            text = f"{event.version}: {event.labels_used} labels, {event.updates} updates"
            self._mark("candidate", event, seconds, text)

    @_fold.register
    def _(self, event: ReleaseChanged, seconds: float) -> None:
        if event.number in self.releases:
            self._compare(self.releases[event.number], event)
            return
        self.releases[event.number] = event
        if event.number > 0:
            self._mark(event.stage.value, event, seconds, f"{event.version}: {event.reason}")

    @_fold.register
    def _(self, event: AuditRecorded, seconds: float) -> None:
        self._compare(self.audit.setdefault(event.number, event), event)

    def _compare(self, known: Event, repeat: Event) -> None:
        if known != repeat:
            self.conflicts.add(repeat.event_id)

    def _mark(self, name: str, event: Event, seconds: float, text: str) -> None:
        self.moments.append(Moment(name, self.position(event.time), seconds, text))

    # --- what is read off ---------------------------------------------------------------------------

    @property
    def base(self) -> ReleaseChanged | None:
        """The first release, if it has been seen."""
        return self.releases.get(0)

    @property
    def released(self) -> ReleaseChanged | None:
        """The newest stable release after the first, if any."""
        stable = [r for n, r in self.releases.items() if n > 0 and r.stage is ReleaseStage.STABLE]
        return max(stable, key=lambda release: release.number, default=None)

    @property
    def rolled_back(self) -> bool:
        """Whether any canary was rolled back."""
        return any(r.stage is ReleaseStage.ROLLED_BACK for r in self.releases.values())

    @property
    def lost(self) -> int:
        """Images with neither a prediction nor a dead letter, and labels of served images not joined."""
        answered = self.served.keys() | self.withheld
        unserved = len(self.images) - len(answered & self.images.keys())
        unjoined = len((self.labels.keys() & self.served.keys()) - self.truth.keys())
        return max(0, unserved + unjoined - len(self.dead_letters))

    @property
    def duplicates_in_effect(self) -> int:
        """Images measured twice, and decisions made twice with different content."""
        return len(self.measured_twice) + len(self.conflicts)

    def moment(self, name: str) -> Moment | None:
        """Return the first moment of a name."""
        return next((moment for moment in self.moments if moment.name == name), None)

    def rolling_accuracy(self, window: int = 64) -> list[tuple[int, float]]:
        """Return (position, accuracy over the last `window` labelled images up to there), by position."""
        known = self.right.keys() & self.images.keys()
        results = sorted((self.position(self.images[image]), image, self.right[image]) for image in known)
        right = [int(correct) for _, _, correct in results]
        points = []
        total = 0
        for index, (position, _, _) in enumerate(results):
            total += right[index]
            if index >= window:
                total -= right[index - window]
            if index >= window // 2:
                points.append((position, total / min(index + 1, window)))
        return points
