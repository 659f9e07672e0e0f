"""Which events are decisions, and the line of the log that each of them is: rare, with its reason and ids.

Everything a service decides is on a topic already; the log says it where the people on call look first.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from medloop_schemas import AdaptationRequested, CandidateTrained, Event, ReleaseChanged, RoundClosed

log = structlog.get_logger()

TOLD: Mapping[type[Event], tuple[str, ...]] = {
    AdaptationRequested: (
        "site_id",
        "diagnosis",
        "strategy",
        "base_version",
        "onset",
        "new_classes",
        "detector",
        "evidence",
    ),
    CandidateTrained: (
        "site_id",
        "version",
        "base_version",
        "request_id",
        "attempt",
        "diagnosis",
        "strategy",
        "labels_used",
        "labels_corrected",
        "labels_quarantined",
        "updates",
        "changed_codes",
        "loss_first",
        "loss_last",
        "why",
        "why_codes",
        "federated",
    ),
    ReleaseChanged: (
        "site_id",
        "number",
        "version",
        "stage",
        "devices",
        "previous_version",
        "request_id",
        "reason",
    ),
    RoundClosed: (
        "federation",
        "number",
        "site_id",
        "base_sha256",
        "merged_sha256",
        "aggregator",
        "samples",
        "clipped",
        "agreement",
        "refused",
        "reason",
    ),
}
"""Decision → the fields that say what was decided, for whom and why."""


def log_decision(event: Event, cause: Event) -> None:
    """Log an event if it is a decision that has been made now.

    A decision has the time of its cause; one that is only said again, as an open request is, has an earlier.
    """
    fields = TOLD.get(type(event))
    if fields is None or event.time < cause.time:
        return
    log.info(
        "decision",
        type=event.event_type,
        event_id=event.event_id,
        cause=cause.event_id,
        **{name: getattr(event, name) for name in fields},
    )
