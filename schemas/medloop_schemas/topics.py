"""The registry of topics: the only coupling between services."""

from __future__ import annotations

from dataclasses import dataclass

from medloop_schemas.adaptation import AdaptationRequested
from medloop_schemas.audit import AuditRecorded
from medloop_schemas.candidate import CandidateTrained
from medloop_schemas.diagnosed import DriftDiagnosed
from medloop_schemas.event import Event
from medloop_schemas.example import ExampleLabelled
from medloop_schemas.federation import RoundClosed, RoundOpened, UpdateSubmitted
from medloop_schemas.fisher import FisherMeasured
from medloop_schemas.image import ImageAcquired
from medloop_schemas.label import LabelConfirmed
from medloop_schemas.label_request import LabelRequested
from medloop_schemas.order import ReleaseOrdered
from medloop_schemas.prediction import PredictionMade
from medloop_schemas.release import ReleaseChanged
from medloop_schemas.signal import DriftSignalled
from medloop_schemas.stats import StatsMeasured

PARTITIONS = 4
"""Of every topic: a service scales to this many replicas; topics with the same key are co-partitioned."""

DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: what it carries, what orders it, how long it is kept."""

    name: str
    event: type[Event]
    key: str
    description: str
    retention_ms: int = 7 * DAY_MS
    partitions: int = PARTITIONS

    @property
    def dead_letters(self) -> str:
        """Where its events go that can't be handled."""
        return f"{self.name}.dlq"


FOREVER = -1

TOPICS: tuple[Topic, ...] = (
    Topic("medloop.images.v1", ImageAcquired, "device_id", "Images as devices take them."),
    Topic("medloop.labels.v1", LabelConfirmed, "device_id", "Readers' labels, late."),
    Topic("medloop.predictions.v1", PredictionMade, "device_id", "What a model version says of an image."),
    Topic("medloop.stats.v1", StatsMeasured, "device_id", "Micro-batches of per-image statistics."),
    Topic("medloop.signals.v1", DriftSignalled, "site_id", "Where every device's detectors stand."),
    Topic("medloop.diagnoses.v1", DriftDiagnosed, "site_id", "What the alarms of a site mean.", FOREVER),
    Topic("medloop.label-requests.v1", LabelRequested, "device_id", "Images whose labels would decide."),
    Topic(
        "medloop.adaptations.v1", AdaptationRequested, "site_id", "What changed and how to adapt.", FOREVER
    ),
    Topic("medloop.examples.v1", ExampleLabelled, "site_id", "Images joined with their late labels."),
    Topic("medloop.candidates.v1", CandidateTrained, "site_id", "Fine-tuned models to be judged.", FOREVER),
    Topic("medloop.orders.v1", ReleaseOrdered, "site_id", "What a person decided about a version.", FOREVER),
    Topic("medloop.releases.v1", ReleaseChanged, "site_id", "Which version may serve whom.", FOREVER),
    Topic("medloop.fisher.v1", FisherMeasured, "base_version", "What matters in a released model.", FOREVER),
    Topic("medloop.updates.v1", UpdateSubmitted, "federation", "How sites' shared weights moved.", FOREVER),
    Topic("medloop.rounds.v1", RoundOpened, "federation", "Rounds in which updates are gathered.", FOREVER),
    Topic("medloop.merges.v1", RoundClosed, "site_id", "What sites have learned together.", FOREVER),
    Topic("medloop.audit.v1", AuditRecorded, "site_id", "Every decision, hash-chained.", FOREVER),
)

_BY_EVENT = {topic.event: topic for topic in TOPICS}


def topic_of(event: type[Event]) -> Topic:
    """Return the topic that carries an event type."""
    return _BY_EVENT[event]
