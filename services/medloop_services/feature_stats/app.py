"""Wires the join of images and predictions to its topics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from medloop_schemas import Event, ImageAcquired, PredictionMade, StatsMeasured

from medloop_services.bus.context import Context
from medloop_services.bus.frames import pixels_on_arrival
from medloop_services.bus.processor import KeyedProcessor, Service
from medloop_services.feature_stats.join import step
from medloop_services.feature_stats.settings import FeatureStatsSettings
from medloop_services.feature_stats.state import JoinState


def build(context: Context) -> Service:
    """Return the service: one processor, keyed by device."""
    settings = context.load(FeatureStatsSettings)
    pixels = partial(pixels_on_arrival, files=context.artifacts)

    def join(state: JoinState, event: Event) -> tuple[JoinState, Sequence[Event]]:
        return step(state, event, settings, pixels)

    processor = KeyedProcessor(
        name="feature_stats",
        inputs=(ImageAcquired, PredictionMade),
        outputs=(StatsMeasured,),
        state=JoinState,
        initial=lambda device_id: JoinState(device_id=device_id),
        step=join,
    )
    return Service(name="feature_stats", processors=(processor,))
