"""Folds the signals of a site's devices into what is diagnosed and at most one open request: the core.

Two incidents may be open at a site: one of the devices whose frames are no pictures, one of all the others.
Only what can be learned leads to a request, which stays open until the version that drifted serves no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from medloop_schemas import (
    AdaptationRequested,
    DetectorReading,
    DriftDiagnosed,
    DriftSignalled,
    Event,
    LabelRequested,
)

from medloop_services.bus.context import Context
from medloop_services.bus.processor import KeyedProcessor
from medloop_services.event_aggregation.alarms import ALARMS, Kind, alarm_of
from medloop_services.event_aggregation.diagnosis import STRATEGIES, Opinion, diagnose, diagnose_fault
from medloop_services.event_aggregation.incidents import Followed, Moment, closing, follow
from medloop_services.event_aggregation.label_requests import ask
from medloop_services.event_aggregation.settings import EventAggregationSettings
from medloop_services.event_aggregation.state import AggregationState, Alarm, DeviceStanding
from medloop_services.event_aggregation.undecided import tell_undecided

Devices = Mapping[str, DeviceStanding]
Step = tuple[AggregationState, Sequence[Event]]


def processor(context: Context) -> KeyedProcessor[AggregationState]:
    """Return the service's only processor, keyed by site; it may run on Faust or on any other loop."""
    settings = context.load(EventAggregationSettings)

    def aggregate(state: AggregationState, event: Event) -> Step:
        after, outputs = step(state, event, settings)
        tell_undecided(state, after, event, context.health)
        return after, outputs

    return KeyedProcessor(
        name="event_aggregation",
        inputs=(DriftSignalled,),
        outputs=(AdaptationRequested, DriftDiagnosed, LabelRequested),
        state=AggregationState,
        initial=lambda site_id: AggregationState(site_id=site_id),
        step=aggregate,
    )


def step(state: AggregationState, event: Event, settings: EventAggregationSettings) -> Step:
    """Apply one signal; a repeat, or one that a later signal of its device has overtaken, changes nothing.

    Returns:
        The new state; what is diagnosed, when it changes and now and then while it is open; labels to ask
        for; and the site's request, when it opens and now and then while it is open.
    """
    if not isinstance(event, DriftSignalled) or _overtaken(state.devices.get(event.device_id), event):
        return state, ()
    before = state.devices.get(event.device_id)
    devices = {**state.devices, event.device_id: standing(before, event, settings)}
    state = state.model_copy(update={"devices": devices})
    active = _active(state, event, settings)
    state, faults = _fault(state, event, active, settings)
    state, diagnosed = _incident(state, event, active, settings)
    state, requests = _request(state, event, active, settings)
    return state, (*faults, *diagnosed, *requests)


def standing(
    before: DeviceStanding | None, signal: DriftSignalled, settings: EventAggregationSettings
) -> DeviceStanding:
    """Return where a device stands after a signal; a new model version starts without alarms.

    From a sensor fault until its traces have left the windows, other alarms of the device don't count.
    """
    same_version = before is not None and before.signal.model_version == signal.model_version
    kept = before if same_version else None
    alarms = {kind: _continued(kept, kind, signal) for kind in Kind}
    faulty_at = before.faulty_at if before is not None else None
    if alarms[Kind.SENSOR] is not None:
        faulty_at = signal.sequence
    elif faulty_at is not None and signal.sequence - faulty_at >= settings.recovery_images:
        faulty_at = None
    if faulty_at is not None:
        alarms = {kind: alarm if kind is Kind.SENSOR else None for kind, alarm in alarms.items()}
    return DeviceStanding(
        signal=signal.model_copy(update={"unlabelled": ()}),  # asked for now or never
        inputs=alarms[Kind.INPUTS],
        labels=alarms[Kind.LABELS],
        prior=alarms[Kind.PRIOR],
        sensor=alarms[Kind.SENSOR],
        faulty_at=faulty_at,
    )


def _continued(before: DeviceStanding | None, kind: Kind, signal: DriftSignalled) -> Alarm | None:
    alarmed: Sequence[DetectorReading] = ALARMS[kind](signal)
    if not alarmed:
        return None
    earlier = alarm_of(before, kind) if before is not None else None
    return earlier or Alarm(began=signal.sequence, first=alarmed[0])


def _overtaken(before: DeviceStanding | None, signal: DriftSignalled) -> bool:
    if before is None:
        return False
    last = before.signal
    if signal.model_version != last.model_version:
        return signal.sequence <= last.sequence
    return (signal.sequence, signal.labels_seen) <= (last.sequence, last.labels_seen)


def _active(state: AggregationState, signal: DriftSignalled, settings: EventAggregationSettings) -> Devices:
    try:
        earliest = signal.time - timedelta(seconds=settings.active_seconds)
    except OverflowError:  # a clock that was never set says year 1
        earliest = datetime.min.replace(tzinfo=UTC)
    return {name: device for name, device in state.devices.items() if device.signal.time >= earliest}


def _fault(
    state: AggregationState, signal: DriftSignalled, active: Devices, settings: EventAggregationSettings
) -> Step:
    """Follow the incident of the devices whose frames are no pictures, or were a moment ago.

    A device that has fallen silent counts too: its own pictures alone tell that its sensor is well.
    """
    faulty = {
        name: device
        for name, device in state.devices.items()
        if device.faulty_at is not None
        and device.signal.sequence - device.faulty_at < settings.closing_images
    }
    moment = Moment(signal, {**active, **faulty}, state.number)
    if not faulty and state.fault is not None:
        said = closing(state.fault, moment, "the frames are pictures again")
        return _said(state, "fault", Followed(None, said))
    opinion = diagnose_fault(faulty)
    return _said(state, "fault", follow(state.fault, opinion, moment, settings))


def _incident(
    state: AggregationState, signal: DriftSignalled, active: Devices, settings: EventAggregationSettings
) -> Step:
    """Follow the incident of the devices whose frames are good, all of one model version."""
    before, moment = state.incident, Moment(signal, active, state.number)
    if before is not None and _has_left(before.message.base_version, active):
        said = closing(before, moment, f"{before.message.base_version} serves no more")
        return _said(state, "incident", Followed(None, said))
    version = before.message.base_version if before is not None else signal.model_version
    opinion = diagnose(_served_by(version, active), settings)
    followed = follow(before, opinion, moment, settings)
    state, outputs = _said(state, "incident", followed)
    if state.incident is None or opinion is None or opinion.diagnosis or opinion.labels_tell:
        return state, outputs
    asking, requests = ask(state.incident, signal, settings)
    return state.model_copy(update={"incident": asking}), (*outputs, *requests)


def _said(state: AggregationState, which: str, followed: Followed) -> Step:
    update = {which: followed.incident, "number": state.number + (followed.said is not None)}
    outputs = () if followed.said is None else (followed.said,)
    return state.model_copy(update=update), outputs


def _request(
    state: AggregationState, signal: DriftSignalled, active: Devices, settings: EventAggregationSettings
) -> Step:
    """Open, repeat or close the request to adapt; what can't be learned, or is uncertain, opens none."""
    if state.open is not None and not _has_left(state.open.base_version, active):
        return _repeated(state, settings)
    opinion = diagnose(_served_by(signal.model_version, active), settings)
    waiting_for = opinion.waiting_for if opinion is not None else None
    state = state.model_copy(update={"open": None, "undecided": waiting_for})
    if opinion is None or opinion.diagnosis not in STRATEGIES:
        return state, ()
    request = _asked(signal, opinion)
    return state.model_copy(update={"open": request, "signals_since_sent": 0}), (request,)


def _served_by(version: str, active: Devices) -> dict[str, DeviceStanding]:
    """Return the devices of a version whose frames are good, and have been for long enough."""
    return {
        name: device
        for name, device in active.items()
        if device.signal.model_version == version and device.faulty_at is None
    }


def _has_left(version: str, active: Devices) -> bool:
    """Return whether every active device has left a version; a canary alone closes nothing."""
    return all(device.signal.model_version != version for device in active.values())


def _repeated(state: AggregationState, settings: EventAggregationSettings) -> Step:
    since = state.signals_since_sent + 1
    if state.open is None or since < settings.signals_per_repeat:
        return state.model_copy(update={"signals_since_sent": since}), ()
    return state.model_copy(update={"signals_since_sent": 0}), (state.open,)


def _asked(signal: DriftSignalled, opinion: Opinion) -> AdaptationRequested:
    if opinion.diagnosis is None:
        raise AssertionError("only what is named is adapted to")
    return AdaptationRequested(
        time=signal.time,
        site_id=signal.site_id,
        diagnosis=opinion.diagnosis,
        strategy=STRATEGIES[opinion.diagnosis],
        base_version=signal.model_version,
        onset=dict(opinion.onset),
        new_classes=dict(opinion.new_classes),
        detector=opinion.detector,
        evidence=opinion.evidence,
    )
