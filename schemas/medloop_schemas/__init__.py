"""What travels on medloop's topics: one module an event family, the topic registry, and the codec.

An integrator installs this distribution alone; it needs pydantic and orjson and nothing else.
"""

from medloop_schemas.adaptation import AdaptationRequested, Diagnosis, Strategy
from medloop_schemas.audit import AuditRecorded
from medloop_schemas.candidate import CandidateTrained
from medloop_schemas.codec import Message, decode, encode
from medloop_schemas.diagnosed import DriftDiagnosed, Scope
from medloop_schemas.errors import ConfigurationError, InvalidEvent, MedloopError, TransientError
from medloop_schemas.event import Event
from medloop_schemas.example import ExampleLabelled
from medloop_schemas.federation import RoundClosed, RoundOpened, UpdateSubmitted
from medloop_schemas.fisher import FisherMeasured
from medloop_schemas.identity import derive_id, pseudonym
from medloop_schemas.image import Frame, ImageAcquired
from medloop_schemas.label import LabelConfirmed
from medloop_schemas.label_request import LabelRequested
from medloop_schemas.order import Order, ReleaseOrdered
from medloop_schemas.prediction import BlockActivation, PredictionMade, ServingStage
from medloop_schemas.release import Artifact, ReleaseChanged, ReleaseStage
from medloop_schemas.signal import (
    AccuracyEstimate,
    DetectorReading,
    DriftSignalled,
    LabelEvidence,
    Layer,
    UnlabelledImage,
)
from medloop_schemas.stats import ImageStatistics, StatsMeasured
from medloop_schemas.topics import TOPICS, Topic, topic_of

__all__ = [
    "TOPICS",
    "AccuracyEstimate",
    "AdaptationRequested",
    "Artifact",
    "AuditRecorded",
    "BlockActivation",
    "CandidateTrained",
    "ConfigurationError",
    "DetectorReading",
    "Diagnosis",
    "DriftDiagnosed",
    "DriftSignalled",
    "Event",
    "ExampleLabelled",
    "FisherMeasured",
    "Frame",
    "ImageAcquired",
    "ImageStatistics",
    "InvalidEvent",
    "LabelConfirmed",
    "LabelEvidence",
    "LabelRequested",
    "Layer",
    "MedloopError",
    "Message",
    "Order",
    "PredictionMade",
    "ReleaseChanged",
    "ReleaseOrdered",
    "ReleaseStage",
    "RoundClosed",
    "RoundOpened",
    "Scope",
    "ServingStage",
    "StatsMeasured",
    "Strategy",
    "Topic",
    "TransientError",
    "UnlabelledImage",
    "UpdateSubmitted",
    "decode",
    "derive_id",
    "encode",
    "pseudonym",
    "topic_of",
]
