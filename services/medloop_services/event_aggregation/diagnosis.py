"""Names what has changed, and on what evidence; causes are tried in the order in which they exclude others.

1. Readers name classes that the model does not have → new class.
2. The inputs have shifted, and so much that most images must be different → data drift.
3. The inputs are as ever, and readers overrule the model more than on the reference → concept drift.
4. The inputs have shifted a little: a new class may be arriving whose labels are late. Wait for the labels
   of images taken since; if they name no new class, it is data drift, or concept drift if only they tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low

from medloop_schemas import DetectorReading, Diagnosis, DriftSignalled, Layer, Strategy

from medloop_services.event_aggregation.settings import EventAggregationSettings
from medloop_services.event_aggregation.state import Alarm, DeviceStanding

STRATEGIES = {
    Diagnosis.DATA_DRIFT: Strategy.SHALLOW_EWC,
    Diagnosis.CONCEPT_DRIFT: Strategy.DISTIL_ALL,
    Diagnosis.NEW_CLASS: Strategy.EXPAND_HEAD,
}


@dataclass(frozen=True)
class Diagnosed:
    """What has changed.

    Attributes:
        diagnosis: its name.
        detector: what alarmed first.
        onset: device → sequence of the first image after the change.
        evidence: sentences.
        new_classes: index → name.
    """

    diagnosis: Diagnosis
    detector: str
    onset: Mapping[str, int]
    evidence: tuple[str, ...]
    new_classes: Mapping[int, str] = field(default_factory=dict)

    @property
    def strategy(self) -> Strategy:
        """How to adapt to it."""
        return STRATEGIES[self.diagnosis]


@dataclass(frozen=True)
class Undecided:
    """Something has changed, but what is not clear yet."""

    waiting_for: str


def diagnose(
    devices: Mapping[str, DeviceStanding], settings: EventAggregationSettings
) -> Diagnosed | Undecided | None:
    """Return what has changed at a site, what is missing to tell, or None while nothing has.

    Args:
        devices: the active devices that one model version serves.
        settings: what tells the diagnoses apart.
    """
    if _unknown_labels(devices) >= settings.unknown_labels:
        return _new_class(devices)
    shifted = _lasting(devices, "inputs", settings)
    overruled = _lasting(devices, "labels", settings)
    if shifted:
        share = max(devices[name].signal.shifted_share for name in shifted)
        if share >= settings.shifted_share:
            return _data_drift(devices, shifted, share)
        return _settle(devices, shifted, overruled, share, settings)
    if overruled:
        return _concept_drift(devices, overruled)
    return None


def input_alarms(signal: DriftSignalled) -> list[DetectorReading]:
    """Return the alarmed readings of every layer but the labels', the clearest first."""
    alarmed = [reading for reading in signal.readings if reading.alarmed and reading.layer is not Layer.LABEL]
    return sorted(alarmed, key=_clearness, reverse=True)


def label_alarms(signal: DriftSignalled) -> list[DetectorReading]:
    """Return the alarmed reading of the error rate, if it is."""
    return [
        reading
        for reading in signal.readings
        if reading.alarmed and reading.layer is Layer.LABEL and reading.statistic == "error"
    ]


def _clearness(reading: DetectorReading) -> float:
    return reading.value / reading.threshold if reading.threshold > 0 else 1.0


def _lasting(
    devices: Mapping[str, DeviceStanding], kind: str, settings: EventAggregationSettings
) -> list[str]:
    """Return the devices alarmed for long enough, if they are enough; otherwise none."""
    lasted = {
        name: standing.signal.sequence - alarm.began
        for name, standing in devices.items()
        if (alarm := _alarm(standing, kind)) is not None
    }
    counted = [name for name, images in lasted.items() if images >= settings.persistence_images]
    alone = any(images >= settings.lone_persistence_images for images in lasted.values())
    return sorted(counted) if alone or len(counted) >= max(1, settings.quorum * len(devices)) else []


def _alarm(standing: DeviceStanding, kind: str) -> Alarm | None:
    return standing.inputs if kind == "inputs" else standing.labels


def _unknown_labels(devices: Mapping[str, DeviceStanding]) -> int:
    return sum(standing.signal.labels.unknown for standing in devices.values())


def _new_class(devices: Mapping[str, DeviceStanding]) -> Diagnosed:
    names = {
        index: name
        for standing in devices.values()
        for index, name in standing.signal.labels.unknown_classes.items()
    }
    unknown = _unknown_labels(devices)
    confirmed = sum(standing.signal.labels.confirmed for standing in devices.values())
    evidence = [
        f"{unknown} of the last {confirmed} labels name a class that the model does not have: "
        f"{', '.join(names[index] for index in sorted(names))}."
    ]
    return Diagnosed(
        Diagnosis.NEW_CLASS,
        detector="labels",
        onset=_site_onset(devices, _unknown_readings),
        evidence=(*evidence, *_input_sentences(devices)),
        new_classes=dict(sorted(names.items())),
    )


def _unknown_readings(signal: DriftSignalled) -> list[DetectorReading]:
    return [
        reading for reading in signal.readings if reading.alarmed and reading.statistic == "unknown_class"
    ]


def _data_drift(devices: Mapping[str, DeviceStanding], shifted: Sequence[str], share: float) -> Diagnosed:
    return Diagnosed(
        Diagnosis.DATA_DRIFT,
        detector=_first_detector(devices, shifted, "inputs"),
        onset={name: _onset(standing, input_alarms(standing.signal)) for name, standing in devices.items()},
        evidence=(
            f"{len(shifted)} of {len(devices)} devices: the inputs have shifted, "
            f"at least {share:.0%} of the recent images are affected.",
            *_input_sentences(devices),
            *_label_sentences(devices),
        ),
    )


def _concept_drift(devices: Mapping[str, DeviceStanding], overruled: Sequence[str]) -> Diagnosed:
    return Diagnosed(
        Diagnosis.CONCEPT_DRIFT,
        detector=_first_detector(devices, overruled, "labels"),
        onset=_site_onset(devices, label_alarms),
        evidence=(
            f"{len(overruled)} of {len(devices)} devices: readers overrule the model more often than on the "
            "reference.",
            *_label_sentences(devices),
            *(_input_sentences(devices) or ("The inputs are as on the reference, in every layer.",)),
        ),
    )


def _settle(
    devices: Mapping[str, DeviceStanding],
    shifted: Sequence[str],
    overruled: Sequence[str],
    share: float,
    settings: EventAggregationSettings,
) -> Diagnosed | Undecided | None:
    """Decide a shift that may be of a few images only, once the labels of images since then are here."""
    labelled = sum(_labelled_since_onset(devices[name]) for name in shifted)
    if labelled < settings.settling_labels:
        return Undecided(
            f"the inputs of {', '.join(shifted)} have shifted in at least {share:.0%} of the images, "
            "which a new class could explain: waiting for the labels of "
            f"{settings.settling_labels} images since then ({labelled} so far)"
        )
    corroborated = any(
        len({reading.detector for reading in input_alarms(devices[name].signal)}) > 1 for name in shifted
    )
    if corroborated:
        return _data_drift(devices, shifted, share)
    return _concept_drift(devices, overruled) if overruled else None


def _labelled_since_onset(standing: DeviceStanding) -> int:
    latest = standing.signal.labels.latest_sequence
    onset = _onset(standing, input_alarms(standing.signal))
    return 0 if latest is None else max(0, latest - onset + 1)


def _onset(standing: DeviceStanding, alarmed: Sequence[DetectorReading]) -> int:
    """Return the first image after the change: the middle one of the detectors' estimates.

    A device on which nothing has alarmed is taken to change only now.
    """
    estimates = [reading.since_sequence for reading in alarmed if reading.since_sequence is not None]
    return median_low(estimates) if estimates else standing.signal.sequence + 1


def _site_onset(
    devices: Mapping[str, DeviceStanding], alarmed_of: Callable[[DriftSignalled], Sequence[DetectorReading]]
) -> dict[str, int]:
    """Return each device's onset of a change that is the readers' or the patients', not a scanner's.

    A device on which nothing has alarmed yet is taken to have changed as many images ago as the others.
    """
    onset = {name: _onset(standing, alarmed_of(standing.signal)) for name, standing in devices.items()}
    alarmed = [name for name, standing in devices.items() if alarmed_of(standing.signal)]
    if not alarmed:
        return onset
    images_since = median_low(devices[name].signal.sequence - onset[name] for name in alarmed)
    quiet = {
        name: max(0, standing.signal.sequence - images_since)
        for name, standing in devices.items()
        if name not in alarmed
    }
    return onset | quiet


def _first_detector(devices: Mapping[str, DeviceStanding], alarmed: Sequence[str], kind: str) -> str:
    alarms = [alarm for name in alarmed if (alarm := _alarm(devices[name], kind)) is not None]
    return min(alarms, key=lambda alarm: alarm.began).first.detector


def _input_sentences(devices: Mapping[str, DeviceStanding]) -> tuple[str, ...]:
    return tuple(
        f"{name}: {reading.detector} of {reading.layer} {reading.statistic} is {reading.value:.3g}, "
        f"threshold {reading.threshold:.3g}, since image {reading.since_sequence}."
        for name, standing in sorted(devices.items())
        for reading in input_alarms(standing.signal)[:1]
    )


def _label_sentences(devices: Mapping[str, DeviceStanding]) -> tuple[str, ...]:
    evidence = [standing.signal.labels for standing in devices.values()]
    confirmed = sum(labels.confirmed for labels in evidence)
    if not confirmed:
        return ()
    errors = sum(labels.errors for labels in evidence)
    expected = max(labels.expected_error for labels in evidence)
    return (f"{errors} of the last {confirmed} labels overrule the model; the reference has {expected:.1%}.",)
