"""Folds the signals of a site's devices into at most one open request: the core of event_aggregation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from medloop_schemas import AdaptationRequested, DetectorReading, DriftSignalled, Event

from medloop_services.bus.context import Context
from medloop_services.bus.processor import KeyedProcessor
from medloop_services.event_aggregation.diagnosis import (
    Diagnosed,
    Undecided,
    diagnose,
    input_alarms,
    label_alarms,
)
from medloop_services.event_aggregation.settings import EventAggregationSettings
from medloop_services.event_aggregation.state import AggregationState, Alarm, DeviceStanding
from medloop_services.event_aggregation.undecided import tell_undecided


def processor(context: Context) -> KeyedProcessor[AggregationState]:
    """Return the service's only processor, keyed by site; it may run on Faust or on any other loop."""
    settings = context.load(EventAggregationSettings)

    def aggregate(state: AggregationState, event: Event) -> tuple[AggregationState, Sequence[Event]]:
        after, requests = step(state, event, settings)
        tell_undecided(state, after, event, context.health)
        return after, requests

    return KeyedProcessor(
        name="event_aggregation",
        inputs=(DriftSignalled,),
        outputs=(AdaptationRequested,),
        state=AggregationState,
        initial=lambda site_id: AggregationState(site_id=site_id),
        step=aggregate,
    )


def step(
    state: AggregationState, event: Event, settings: EventAggregationSettings
) -> tuple[AggregationState, Sequence[AdaptationRequested]]:
    """Apply one signal; a repeat, or one that a later signal of its device has overtaken, changes nothing.

    Returns:
        The new state, and the site's request: when it opens, and now and then as long as it is open.
    """
    if not isinstance(event, DriftSignalled) or _overtaken(state.devices.get(event.device_id), event):
        return state, ()
    devices = {**state.devices, event.device_id: standing(state.devices.get(event.device_id), event)}
    state = state.model_copy(update={"devices": devices})
    active = _active(state, event, settings)
    if state.open is not None and not _closed(state.open, active):
        return _repeated(state, settings)
    state = state.model_copy(update={"open": None, "undecided": None})
    peers = {
        name: device for name, device in active.items() if device.signal.model_version == event.model_version
    }
    match diagnose(peers, settings):
        case Diagnosed() as diagnosed:
            request = _request(event, diagnosed)
            return state.model_copy(update={"open": request, "signals_since_sent": 0}), (request,)
        case Undecided(waiting_for):
            return state.model_copy(update={"undecided": waiting_for}), ()
        case None:
            return state, ()


def standing(before: DeviceStanding | None, signal: DriftSignalled) -> DeviceStanding:
    """Return where a device stands after a signal; a new model version starts without alarms."""
    same_version = before is not None and before.signal.model_version == signal.model_version
    inputs = before.inputs if before is not None and same_version else None
    labels = before.labels if before is not None and same_version else None
    return DeviceStanding(
        signal=signal,
        inputs=_continued(inputs, input_alarms(signal), signal.sequence),
        labels=_continued(labels, label_alarms(signal), signal.sequence),
    )


def _continued(alarm: Alarm | None, alarmed: Sequence[DetectorReading], sequence: int) -> Alarm | None:
    if not alarmed:
        return None
    return alarm or Alarm(began=sequence, first=alarmed[0])


def _overtaken(before: DeviceStanding | None, signal: DriftSignalled) -> bool:
    if before is None:
        return False
    last = before.signal
    if signal.model_version != last.model_version:
        return signal.sequence <= last.sequence
    return (signal.sequence, signal.labels_seen) <= (last.sequence, last.labels_seen)


def _active(
    state: AggregationState, signal: DriftSignalled, settings: EventAggregationSettings
) -> dict[str, DeviceStanding]:
    earliest = signal.time - timedelta(seconds=settings.active_seconds)
    return {name: device for name, device in state.devices.items() if device.signal.time >= earliest}


def _closed(request: AdaptationRequested, active: dict[str, DeviceStanding]) -> bool:
    """Return whether every active device has left the version that drifted; a canary alone closes nothing."""
    return all(device.signal.model_version != request.base_version for device in active.values())


def _repeated(
    state: AggregationState, settings: EventAggregationSettings
) -> tuple[AggregationState, Sequence[AdaptationRequested]]:
    since = state.signals_since_sent + 1
    if state.open is None or since < settings.signals_per_repeat:
        return state.model_copy(update={"signals_since_sent": since}), ()
    return state.model_copy(update={"signals_since_sent": 0}), (state.open,)


def _request(signal: DriftSignalled, diagnosed: Diagnosed) -> AdaptationRequested:
    return AdaptationRequested(
        time=signal.time,
        site_id=signal.site_id,
        diagnosis=diagnosed.diagnosis,
        strategy=diagnosed.strategy,
        base_version=signal.model_version,
        onset=dict(diagnosed.onset),
        new_classes=dict(diagnosed.new_classes),
        detector=diagnosed.detector,
        evidence=diagnosed.evidence,
    )
