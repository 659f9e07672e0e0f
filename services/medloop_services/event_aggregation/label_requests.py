"""Chooses images whose labels are asked for while a diagnosis waits for some.

At random within strata: predicted class × before or after the estimated change × device. The order in which a
signal offers images is random by the images' ids, so that taking the first of a stratum is taking any; what
an image shows never matters, only when it came. A bounded number is asked for in one incident.
"""

from __future__ import annotations

from collections import Counter

from medloop_schemas import DriftSignalled, LabelRequested, UnlabelledImage

from medloop_services.event_aggregation.settings import EventAggregationSettings
from medloop_services.event_aggregation.state import Incident


def ask(
    incident: Incident, signal: DriftSignalled, settings: EventAggregationSettings
) -> tuple[Incident, tuple[LabelRequested, ...]]:
    """Return the incident, with what it has asked for, and the requests for images of one device.

    Args:
        incident: undecided for want of labels.
        signal: of a device, with the images that it offers; none are taken of a device that is not affected.
        settings: how many.
    """
    if signal.device_id not in incident.message.onset:
        return incident, ()
    onset = incident.message.onset[signal.device_id]
    asked, counts = dict(incident.asked), Counter(incident.asked.values())
    requests: list[LabelRequested] = []
    for image in signal.unlabelled:
        stratum = _stratum(signal.device_id, image, onset)
        if image.image_id in asked or counts[stratum] >= settings.stratum_labels:
            continue
        if len(asked) >= settings.requested_labels:
            break
        counts[stratum] += 1
        asked[image.image_id] = stratum
        requests.append(_request(incident, signal, image, image.sequence >= onset))
    return incident.model_copy(update={"asked": asked}), tuple(requests)


def _stratum(device_id: str, image: UnlabelledImage, onset: int) -> str:
    return f"{device_id}/{image.predicted_class}/{'after' if image.sequence >= onset else 'before'}"


def _request(
    incident: Incident, signal: DriftSignalled, image: UnlabelledImage, after: bool
) -> LabelRequested:
    return LabelRequested(
        time=signal.time,
        image_id=image.image_id,
        device_id=signal.device_id,
        site_id=signal.site_id,
        sequence=image.sequence,
        incident=incident.message.incident,
        predicted_class=image.predicted_class,
        after_onset=after,
        reason=incident.message.waiting_for or "the diagnosis is undecided",
    )
