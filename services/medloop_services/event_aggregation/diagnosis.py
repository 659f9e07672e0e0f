"""Names what has changed, with probabilities and evidence, or says what it waits for.

What alarms and labels show is put into a few findings; `probability.py` turns them into a probability for
each cause, and a cause is named from `confidence` on. Frames that are no pictures are judged on their own:
what else is measured of them, and what readers make of them, means nothing.

Labels settle what a small shift of the inputs is: a new class whose labels are late looks like that. Its
labels are waited for, those of images taken since; a shift that one detector alone sees and labels don't
confirm is taken for a false alarm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medloop_schemas import Diagnosis, Layer, Strategy

from medloop_services.event_aggregation.alarms import (
    ALARMS,
    AlarmsOf,
    Kind,
    device_onset,
    first_detector,
    input_alarms,
    label_alarms,
    lasting,
    onset_of,
    prior_alarms,
    sensor_alarms,
    site_onset,
    unknown_alarms,
    watches_mix,
)
from medloop_services.event_aggregation.probability import (
    Errors,
    Evidence,
    Inputs,
    Mix,
    Names,
    Sensor,
    probabilities,
)
from medloop_services.event_aggregation.settings import EventAggregationSettings
from medloop_services.event_aggregation.state import DeviceStanding

STRATEGIES = {
    Diagnosis.DATA_DRIFT: Strategy.SHALLOW_EWC,
    Diagnosis.CONCEPT_DRIFT: Strategy.DISTIL_ALL,
    Diagnosis.NEW_CLASS: Strategy.EXPAND_HEAD,
}
"""How to adapt to what can be learned; other patients and broken devices are not learned from."""

Devices = Mapping[str, DeviceStanding]


@dataclass(frozen=True)
class Opinion:
    """What is thought of some devices' alarms.

    Attributes:
        probabilities: of each cause.
        diagnosis: the one that is probable enough to be named, or None.
        detector: what alarmed first.
        affected: the devices that have changed.
        onset: each device's first image after the change, of those not affected too.
        evidence: sentences.
        new_classes: index → name.
        labels_tell: whether there are labels enough of images since the change.
        waiting_for: what would decide, while nothing is named.
    """

    probabilities: Mapping[Diagnosis, float]
    diagnosis: Diagnosis | None
    detector: str
    affected: tuple[str, ...]
    onset: Mapping[str, int]
    evidence: tuple[str, ...]
    new_classes: Mapping[int, str] = field(default_factory=dict)
    labels_tell: bool = False
    waiting_for: str | None = None


def diagnose(devices: Devices, settings: EventAggregationSettings) -> Opinion | None:
    """Return what is thought of devices whose frames are good, or None while nothing has changed.

    Args:
        devices: the active devices that one model version serves.
        settings: what tells the diagnoses apart.
    """
    alarmed = _alarmed(devices, settings)
    unknown = _unknown_labels(devices) >= settings.unknown_labels
    if not unknown and not any(alarmed.values()):
        return None
    labelled = _labelled(devices, alarmed)
    evidence = evidence_of(devices, settings)
    if _is_false_alarm(evidence):
        return None
    likely = probabilities(evidence)
    cause = max(likely, key=lambda one: likely[one])
    named = cause if likely[cause] >= settings.confidence else None
    return Opinion(
        probabilities=likely,
        diagnosis=named,
        detector=_detector(devices, alarmed, unknown),
        affected=_affected(devices, alarmed, unknown),
        onset=_onset(devices, cause),
        evidence=_sentences(devices, alarmed, unknown),
        new_classes=_unknown_classes(devices) if unknown else {},
        labels_tell=labelled >= settings.settling_labels,
        waiting_for=None if named else _waiting_for(devices, alarmed, evidence, labelled, settings),
    )


def diagnose_fault(devices: Devices) -> Opinion | None:
    """Return what is thought of devices whose frames are no pictures, or None if there is none."""
    if not devices:
        return None
    likely = probabilities(Evidence(sensor=Sensor.FAULTY))
    sentences = [
        f"{name}: {_FAULTS.get(reading.statistic, reading.statistic)} since image {reading.since_sequence}."
        for name, standing in sorted(devices.items())
        for reading in sensor_alarms(standing.signal)[:1]
    ]
    return Opinion(
        probabilities=likely,
        diagnosis=Diagnosis.SENSOR_FAULT,
        detector=Kind.SENSOR,
        affected=tuple(sorted(devices)),
        onset=device_onset(devices, sensor_alarms),
        evidence=tuple(sentences)
        or (f"{', '.join(sorted(devices))}: pictures again, for a short time yet.",),
    )


_FAULTS = {
    "black": "the frames show nothing",
    "inverted": "the frames are negatives of pictures",
    "frozen": "the same frame comes again and again",
}


def evidence_of(devices: Devices, settings: EventAggregationSettings) -> Evidence:
    """Return what is found at devices whose frames are good; arguments as of `diagnose`."""
    alarmed = _alarmed(devices, settings)
    unknown = _unknown_labels(devices) >= settings.unknown_labels
    settled = _labelled(devices, alarmed) >= settings.settling_labels
    overruled = bool(alarmed[Kind.LABELS])
    return Evidence(
        sensor=Sensor.GOOD,
        inputs=_inputs(devices, alarmed[Kind.INPUTS], settings),
        mix=_mix(devices, alarmed[Kind.PRIOR]),
        names=Names.UNKNOWN if unknown else Names.KNOWN if settled else None,
        errors=Errors.RAISED if overruled else Errors.EXPECTED if settled else None,
    )


def _alarmed(devices: Devices, settings: EventAggregationSettings) -> dict[Kind, list[str]]:
    return {kind: lasting(devices, kind, settings) for kind in (Kind.INPUTS, Kind.LABELS, Kind.PRIOR)}


def _mix(devices: Devices, moved: Sequence[str]) -> Mix | None:
    """Return what the mix of answers shows; None while nobody watches it, or it has only just moved."""
    if moved:
        return Mix.MOVED
    watched = any(watches_mix(standing.signal) for standing in devices.values())
    just_moved = any(standing.prior is not None for standing in devices.values())
    return Mix.QUIET if watched and not just_moved else None


def _inputs(devices: Devices, shifted: Sequence[str], settings: EventAggregationSettings) -> Inputs:
    if not shifted:
        return Inputs.QUIET
    if _share(devices, shifted) >= settings.shifted_share:
        return Inputs.MOST
    alarms = [input_alarms(devices[name].signal) for name in shifted]
    if not any(reading.layer is Layer.DATA for readings in alarms for reading in readings):
        return Inputs.DEEP
    several = any(len({reading.detector for reading in readings}) > 1 for readings in alarms)
    return Inputs.SOME if several else Inputs.SLIGHT


def _is_false_alarm(evidence: Evidence) -> bool:
    """Return whether one detector alone has seen a shift of few images, and labels find nothing amiss."""
    amiss = evidence.mix is Mix.MOVED or evidence.errors is not Errors.EXPECTED
    return evidence.inputs is Inputs.SLIGHT and evidence.names is Names.KNOWN and not amiss


def _labelled(devices: Devices, alarmed: Mapping[Kind, Sequence[str]]) -> int:
    """Return how many images since the change have a label, on the devices whose images tell of it."""
    kind = next((kind for kind in (Kind.INPUTS, Kind.PRIOR, Kind.LABELS) if alarmed[kind]), Kind.LABELS)
    return sum(_labelled_since(devices[name], ALARMS[kind]) for name in alarmed[kind])


def _labelled_since(standing: DeviceStanding, alarmed_of: AlarmsOf) -> int:
    latest = standing.signal.labels.latest_sequence
    return 0 if latest is None else max(0, latest - onset_of(standing, alarmed_of(standing.signal)) + 1)


def _unknown_labels(devices: Devices) -> int:
    return sum(standing.signal.labels.unknown for standing in devices.values())


def _unknown_classes(devices: Devices) -> dict[int, str]:
    names = {
        index: name
        for standing in devices.values()
        for index, name in standing.signal.labels.unknown_classes.items()
    }
    return dict(sorted(names.items()))


def _share(devices: Devices, shifted: Sequence[str]) -> float:
    return max(devices[name].signal.shifted_share for name in shifted)


def _onset(devices: Devices, cause: Diagnosis) -> dict[str, int]:
    """Return each device's onset; a scanner changes alone, readers and patients on all devices at once."""
    match cause:
        case Diagnosis.CONCEPT_DRIFT:
            return site_onset(devices, label_alarms)
        case Diagnosis.NEW_CLASS if _unknown_labels(devices):
            return site_onset(devices, unknown_alarms)
        case Diagnosis.PRIOR_SHIFT:
            return site_onset(devices, prior_alarms)
        case _:
            return device_onset(devices, input_alarms)


def _affected(devices: Devices, alarmed: Mapping[Kind, Sequence[str]], unknown: bool) -> tuple[str, ...]:
    if alarmed[Kind.INPUTS] and not unknown:
        return tuple(alarmed[Kind.INPUTS])
    return tuple(sorted(devices))  # readers and patients are all devices'


def _detector(devices: Devices, alarmed: Mapping[Kind, Sequence[str]], unknown: bool) -> str:
    if unknown:
        return "labels"
    kind = next(kind for kind in (Kind.INPUTS, Kind.LABELS, Kind.PRIOR) if alarmed[kind])
    return first_detector(devices, alarmed[kind], kind)


def _sentences(devices: Devices, alarmed: Mapping[Kind, Sequence[str]], unknown: bool) -> tuple[str, ...]:
    sentences: list[str] = []
    if unknown:
        confirmed = sum(standing.signal.labels.confirmed for standing in devices.values())
        sentences.append(
            f"{_unknown_labels(devices)} of the last {confirmed} labels name a class that the model does not "
            f"have: {', '.join(_unknown_classes(devices).values())}."
        )
    if shifted := alarmed[Kind.INPUTS]:
        sentences.append(
            f"{len(shifted)} of {len(devices)} devices: the inputs have shifted, at least "
            f"{_share(devices, shifted):.0%} of the recent images are affected."
        )
    if overruled := alarmed[Kind.LABELS]:
        sentences.append(
            f"{len(overruled)} of {len(devices)} devices: readers overrule the model more often than on the "
            "reference."
        )
    if moved := alarmed[Kind.PRIOR]:
        sentences.append(f"{len(moved)} of {len(devices)} devices: the mix of the model's answers has moved.")
    inputs = _input_sentences(devices) or ("The inputs are as on the reference, in every layer.",)
    return (*sentences, *inputs, *_label_sentences(devices))


def _waiting_for(
    devices: Devices,
    alarmed: Mapping[Kind, Sequence[str]],
    evidence: Evidence,
    labelled: int,
    settings: EventAggregationSettings,
) -> str:
    if not evidence.labels_awaited:
        return "the evidence fits more than one cause: waiting for it to change, or for a person to look"
    waiting = f"waiting for the labels of {settings.settling_labels} images since then ({labelled} so far)"
    if shifted := alarmed[Kind.INPUTS]:
        return (
            f"the inputs of {', '.join(shifted)} have shifted in at least {_share(devices, shifted):.0%} of "
            f"the images, which a new class could explain: {waiting}"
        )
    moved = alarmed[Kind.PRIOR] or alarmed[Kind.LABELS]
    return f"{', '.join(moved)} may see other patients, or have other readers: {waiting}"


def _input_sentences(devices: Devices) -> tuple[str, ...]:
    return tuple(
        f"{name}: {reading.detector} of {reading.layer} {reading.statistic} is {reading.value:.3g}, "
        f"threshold {reading.threshold:.3g}, since image {reading.since_sequence}."
        for name, standing in sorted(devices.items())
        for reading in input_alarms(standing.signal)[:1]
    )


def _label_sentences(devices: Devices) -> tuple[str, ...]:
    labels = [standing.signal.labels for standing in devices.values()]
    confirmed = sum(one.confirmed for one in labels)
    if not confirmed:
        return ()
    errors = sum(one.errors for one in labels)
    expected = max(one.expected_error for one in labels)
    return (f"{errors} of the last {confirmed} labels overrule the model; the reference has {expected:.1%}.",)
