"""Which devices are alarmed, by what, for how long, and since when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from statistics import median_low

from medloop_schemas import DetectorReading, DriftSignalled, Layer

from medloop_services.event_aggregation.settings import EventAggregationSettings
from medloop_services.event_aggregation.state import Alarm, DeviceStanding

PRIOR, SENSOR = "prior", "sensor"
"""Detectors that speak for themselves: of the mix of answers, and of the frames. They are no input alarms."""

AlarmsOf = Callable[[DriftSignalled], Sequence[DetectorReading]]


class Kind(StrEnum):
    """What a device may be alarmed by; the names of a standing's fields."""

    INPUTS = "inputs"
    LABELS = "labels"
    PRIOR = "prior"
    SENSOR = "sensor"


def input_alarms(signal: DriftSignalled) -> list[DetectorReading]:
    """Return the alarmed readings of what images and network look like, the clearest first."""
    return _clearest_first(
        signal, lambda one: one.layer is not Layer.LABEL and one.detector not in (PRIOR, SENSOR)
    )


def label_alarms(signal: DriftSignalled) -> list[DetectorReading]:
    """Return the alarmed reading of the error rate, if it is."""
    return _clearest_first(signal, lambda one: one.layer is Layer.LABEL and one.statistic == "error")


def unknown_alarms(signal: DriftSignalled) -> list[DetectorReading]:
    """Return the alarmed reading of labels whose class the model does not have, if it is."""
    return _clearest_first(signal, lambda one: one.statistic == "unknown_class")


def prior_alarms(signal: DriftSignalled) -> list[DetectorReading]:
    """Return the alarmed readings of the mix of predicted classes."""
    return _clearest_first(signal, lambda one: one.detector == PRIOR)


def watches_mix(signal: DriftSignalled) -> bool:
    """Return whether the mix of predicted classes is watched at all."""
    return any(reading.detector == PRIOR for reading in signal.readings)


def sensor_alarms(signal: DriftSignalled) -> list[DetectorReading]:
    """Return the alarmed readings of frames that are no pictures, the clearest first."""
    return _clearest_first(signal, lambda one: one.detector == SENSOR)


ALARMS: Mapping[Kind, AlarmsOf] = {
    Kind.INPUTS: input_alarms,
    Kind.LABELS: label_alarms,
    Kind.PRIOR: prior_alarms,
    Kind.SENSOR: sensor_alarms,
}


def lasting(
    devices: Mapping[str, DeviceStanding], kind: Kind, settings: EventAggregationSettings
) -> list[str]:
    """Return the devices alarmed for long enough, if they are enough; otherwise none.

    A sensor's fault is its device's own, and its detector has waited long enough.
    """
    lasted = {
        name: standing.signal.sequence - alarm.began
        for name, standing in devices.items()
        if (alarm := alarm_of(standing, kind)) is not None
    }
    if kind is Kind.SENSOR:
        return sorted(lasted)
    least = settings.prior_persistence_images if kind is Kind.PRIOR else settings.persistence_images
    counted = sorted(name for name, images in lasted.items() if images >= least)
    alone = any(lasted[name] >= max(least, settings.lone_persistence_images) for name in counted)
    return counted if alone or len(counted) >= max(1, settings.quorum * len(devices)) else []


def alarm_of(standing: DeviceStanding, kind: Kind) -> Alarm | None:
    """Return a device's alarm of a kind."""
    alarm: Alarm | None = getattr(standing, kind)
    return alarm


def first_detector(devices: Mapping[str, DeviceStanding], alarmed: Sequence[str], kind: Kind) -> str:
    """Return what alarmed first on some devices, of which one is."""
    alarms = [alarm for name in alarmed if (alarm := alarm_of(devices[name], kind)) is not None]
    return min(alarms, key=lambda alarm: alarm.began).first.detector


def onset_of(standing: DeviceStanding, alarmed: Sequence[DetectorReading]) -> int:
    """Return the first image after the change: the middle one of the detectors' estimates.

    A device on which nothing has alarmed is taken to change only now.
    """
    estimates = [reading.since_sequence for reading in alarmed if reading.since_sequence is not None]
    return median_low(estimates) if estimates else standing.signal.sequence + 1


def device_onset(devices: Mapping[str, DeviceStanding], alarmed_of: AlarmsOf) -> dict[str, int]:
    """Return each device's onset of a change that is its own."""
    return {name: onset_of(standing, alarmed_of(standing.signal)) for name, standing in devices.items()}


def site_onset(devices: Mapping[str, DeviceStanding], alarmed_of: AlarmsOf) -> dict[str, int]:
    """Return each device's onset of a change that is the readers' or the patients', not a scanner's.

    A device on which nothing has alarmed yet is taken to have changed as many images ago as the others.
    """
    onset = device_onset(devices, alarmed_of)
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


def _clearest_first(
    signal: DriftSignalled, wanted: Callable[[DetectorReading], bool]
) -> list[DetectorReading]:
    alarmed = [reading for reading in signal.readings if reading.alarmed and wanted(reading)]
    return sorted(alarmed, key=_clearness, reverse=True)


def _clearness(reading: DetectorReading) -> float:
    return reading.value / reading.threshold if reading.threshold > 0 else 1.0
