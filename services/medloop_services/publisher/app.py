"""The publisher's composition: adaptations, candidates, examples, orders in; releases, audit records out."""

from __future__ import annotations

from medloop_schemas import (
    AdaptationRequested,
    AuditRecorded,
    CandidateTrained,
    ExampleLabelled,
    ReleaseChanged,
    ReleaseOrdered,
)

from medloop_services.bus.context import Context
from medloop_services.bus.processor import Follower, KeyedProcessor, Service
from medloop_services.publisher.evaluation import EngineEvaluator
from medloop_services.publisher.origin import first_releases
from medloop_services.publisher.rollout import Rollout
from medloop_services.publisher.settings import PublisherSettings
from medloop_services.publisher.state import PublisherState


def build(context: Context) -> Service:
    """Return the service."""
    settings = context.load(PublisherSettings)
    origins = first_releases(settings, context.artifacts)
    rollout = Rollout(settings=settings, evaluator=EngineEvaluator(context.artifacts))
    return Service(
        name="publisher",
        processors=(
            KeyedProcessor(
                name="publisher",
                inputs=(AdaptationRequested, CandidateTrained, ExampleLabelled, ReleaseOrdered),
                outputs=(ReleaseChanged, AuditRecorded),
                state=PublisherState,
                initial=origins.initial,
                step=rollout.step,
            ),
        ),
        followers=(Follower(ReleaseChanged, origins.apply),),
        bootstrap=origins.bootstrap,
    )
