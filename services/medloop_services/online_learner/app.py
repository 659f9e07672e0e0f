"""The online learner's composition: one processor by device, one by site; releases and Fishers followed."""

from __future__ import annotations

from functools import partial

from medloop_schemas import (
    AdaptationRequested,
    CandidateTrained,
    ExampleLabelled,
    FisherMeasured,
    ImageAcquired,
    LabelConfirmed,
    PredictionMade,
    ReleaseChanged,
    RoundClosed,
    UpdateSubmitted,
)

from medloop_services.bus.cache import cache_directory
from medloop_services.bus.catalog import ReleaseCatalog
from medloop_services.bus.context import Context
from medloop_services.bus.fisher_catalog import FisherCatalog
from medloop_services.bus.processor import Follower, KeyedProcessor, Service
from medloop_services.online_learner import pairing
from medloop_services.online_learner.checkpoints import Checkpoints
from medloop_services.online_learner.fisher import FisherChoice
from medloop_services.online_learner.learning import Learning
from medloop_services.online_learner.membership import membership
from medloop_services.online_learner.settings import LearnerSettings
from medloop_services.online_learner.state import LearningState, PairingState
from medloop_services.online_learner.trainer import StreamingTrainer, open_streaming_learner


def build(context: Context) -> Service:
    """Return the service."""
    settings = context.load(LearnerSettings)
    catalog = ReleaseCatalog()
    fishers = FisherCatalog(released=lambda version: catalog.package_of(version) is not None)
    checkpoints = Checkpoints(cache_directory() / "learners")
    trainer = StreamingTrainer(
        context.artifacts,
        settings,
        checkpoints,
        open_streaming_learner,
        membership(settings, context.artifacts),
    )
    fisher_of = FisherChoice(fishers.measured, context.artifacts)
    learning = Learning(
        settings=settings, trainer=trainer, release_of=catalog.release_of, fisher_of=fisher_of
    )
    return Service(
        name="online_learner",
        processors=(
            KeyedProcessor(
                name="online_learner.pairing",
                inputs=(ImageAcquired, PredictionMade, LabelConfirmed),
                outputs=(ExampleLabelled,),
                state=PairingState,
                initial=lambda _device: PairingState(),
                step=partial(pairing.step, settings=settings),
            ),
            KeyedProcessor(
                name="online_learner.learning",
                inputs=(AdaptationRequested, ExampleLabelled, ReleaseChanged, RoundClosed),
                outputs=(CandidateTrained, UpdateSubmitted),
                state=LearningState,
                initial=lambda _site: LearningState(),
                step=learning.step,
            ),
        ),
        followers=(Follower(ReleaseChanged, catalog.apply), Follower(FisherMeasured, fishers.apply)),
    )
