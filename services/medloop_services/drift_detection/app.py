"""Wires the detectors to their topics."""

from __future__ import annotations

from collections.abc import Sequence

from medloop_schemas import DriftSignalled, Event, LabelConfirmed, ReleaseChanged, StatsMeasured

from medloop_services.bus.catalog import ReleaseCatalog
from medloop_services.bus.context import Context
from medloop_services.bus.processor import Follower, KeyedProcessor, Service
from medloop_services.drift_detection.detection import step
from medloop_services.drift_detection.panels import Panels
from medloop_services.drift_detection.settings import DriftDetectionSettings
from medloop_services.drift_detection.state import DetectionState


def build(context: Context) -> Service:
    """Return the service: one processor, keyed by device, which follows the releases."""
    settings = context.load(DriftDetectionSettings)
    catalog = ReleaseCatalog()
    panels = Panels(catalog, context.artifacts, settings)

    def detect(state: DetectionState, event: Event) -> tuple[DetectionState, Sequence[Event]]:
        return step(state, event, settings, panels)

    processor = KeyedProcessor(
        name="drift_detection",
        inputs=(StatsMeasured, LabelConfirmed),
        outputs=(DriftSignalled,),
        state=DetectionState,
        initial=lambda device_id: DetectionState(device_id=device_id),
        step=detect,
    )
    return Service(
        name="drift_detection",
        processors=(processor,),
        followers=(Follower(ReleaseChanged, catalog.apply),),
        waiting_for=catalog.waiting_for,
    )
