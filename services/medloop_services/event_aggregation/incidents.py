"""Follows incidents: one from the first lasting alarm to its closing message, however many devices alarm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medloop_schemas import (
    AccuracyEstimate,
    Diagnosis,
    DriftDiagnosed,
    DriftSignalled,
    Scope,
    derive_id,
)

from medloop_services.event_aggregation.diagnosis import Opinion
from medloop_services.event_aggregation.settings import EventAggregationSettings
from medloop_services.event_aggregation.state import DeviceStanding, Incident

STILL_LIKELY = 0.5
"""A cause that has been named is taken back when it is less probable than this: names don't flicker."""


@dataclass(frozen=True)
class Moment:
    """A signal, and what is known when it comes.

    Attributes:
        signal: that has just come.
        site: all active devices.
        number: of the site's next message.
    """

    signal: DriftSignalled
    site: Mapping[str, DeviceStanding]
    number: int


@dataclass(frozen=True)
class Followed:
    """An incident after a signal, and what is to be said of it now, if anything."""

    incident: Incident | None
    said: DriftDiagnosed | None = None


def follow(
    before: Incident | None,
    opinion: Opinion | None,
    moment: Moment,
    settings: EventAggregationSettings,
) -> Followed:
    """Open, go on with or close an incident.

    Args:
        before: the incident, if one is open.
        opinion: what is thought of its devices, or None if nothing is found.
        moment: now.
        settings: when to repeat and when to close.
    """
    if opinion is not None:
        return _found(before, opinion, moment, settings)
    if before is None:
        return Followed(None)
    site = moment.site
    quiet = {name: before.quiet.get(name, standing.signal.sequence) for name, standing in site.items()}
    if _is_back(before.message, quiet, site, settings):
        return Followed(None, closing(before, moment, "the streams are as on the reference again"))
    return Followed(before.model_copy(update={"quiet": quiet}))


def closing(incident: Incident, moment: Moment, why: str) -> DriftDiagnosed:
    """Return the last message of an incident."""
    return incident.message.model_copy(
        update={
            "time": moment.signal.time,
            "number": moment.number,
            "open": False,
            "evidence": (f"Closed: {why}.",),
            "waiting_for": None,
        }
    )


def _found(
    before: Incident | None,
    opinion: Opinion,
    moment: Moment,
    settings: EventAggregationSettings,
) -> Followed:
    said = _message(before, opinion, moment, settings)
    if before is None:
        return Followed(Incident(message=said), said)
    since = before.signals_since_sent + 1
    changed = (said.diagnosis, said.onset.keys()) != (before.message.diagnosis, before.message.onset.keys())
    if changed or since >= settings.signals_per_repeat:
        return Followed(
            before.model_copy(update={"message": said, "signals_since_sent": 0, "quiet": {}}), said
        )
    return Followed(before.model_copy(update={"signals_since_sent": since, "quiet": {}}))


def _message(
    before: Incident | None,
    opinion: Opinion,
    moment: Moment,
    settings: EventAggregationSettings,
) -> DriftDiagnosed:
    signal, site = moment.signal, moment.site
    last = before.message if before is not None else None
    # The first estimate is the best: the windows that it comes from move on.
    onset = {name: opinion.onset[name] for name in opinion.affected}
    known = {name: last.onset[name] for name in onset if name in last.onset} if last is not None else {}
    return DriftDiagnosed(
        time=signal.time,
        site_id=signal.site_id,
        number=moment.number,
        incident=last.incident
        if last is not None
        else derive_id("incident", signal.event_id, opinion.detector),
        open=True,
        base_version=site[opinion.affected[0]].signal.model_version,
        diagnosis=_named(last, opinion),
        probabilities=dict(opinion.probabilities),
        scope=_scope(len(opinion.affected), len(site), settings),
        onset=onset | known,
        evidence=opinion.evidence,
        accuracy=None if opinion.labels_tell else _pooled(opinion, site),
        waiting_for=opinion.waiting_for,
    )


def _named(last: DriftDiagnosed | None, opinion: Opinion) -> Diagnosis | None:
    if opinion.diagnosis is not None or last is None or last.diagnosis is None:
        return opinion.diagnosis
    return last.diagnosis if opinion.probabilities[last.diagnosis] >= STILL_LIKELY else None


def _scope(affected: int, active: int, settings: EventAggregationSettings) -> Scope:
    """Return how far a change reaches; a site's only device can't tell a scanner from a site."""
    return Scope.SITE if active > 1 and affected > settings.quorum * active else Scope.DEVICE


def _pooled(opinion: Opinion, site: Mapping[str, DeviceStanding]) -> AccuracyEstimate | None:
    """Return the devices' estimates as one; bounds are averaged, since all share one reference's error."""
    found = [one for name in opinion.affected if (one := site[name].signal.accuracy) is not None]
    images = sum(one.images for one in found)
    if not images:
        return None
    return AccuracyEstimate(
        expected=sum(one.expected * one.images for one in found) / images,
        low=sum(one.low * one.images for one in found) / images,
        high=sum(one.high * one.images for one in found) / images,
        images=images,
    )


def _is_back(
    message: DriftDiagnosed,
    quiet: Mapping[str, int],
    site: Mapping[str, DeviceStanding],
    settings: EventAggregationSettings,
) -> bool:
    """Return whether every device that was affected, and still sends, has been quiet for long enough.

    One whose frames are no pictures, or were a moment ago, shows nothing either way.
    """
    affected = [(name, site[name]) for name in message.onset if name in site]
    return all(
        standing.faulty_at is None and standing.signal.sequence - quiet[name] >= settings.closing_images
        for name, standing in affected
    )
