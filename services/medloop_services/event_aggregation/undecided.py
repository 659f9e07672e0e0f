"""Says why a diagnosis is still open: as a note on the health endpoint, and once in the log."""

from __future__ import annotations

import structlog
from medloop_schemas import Event

from medloop_services.bus.health import Health
from medloop_services.event_aggregation.state import AggregationState

SETTLED = "no adaptation is needed: the alarm has ended, or the labels since then agree with the model"

_log = structlog.get_logger(__name__)


def tell_undecided(before: AggregationState, after: AggregationState, event: Event, health: Health) -> None:
    """Compare a site's states before and after an event; the note is renewed, the log told of a change."""
    cause = f"diagnosis of {after.site_id}"
    if after.undecided is None:
        health.clear(cause)
    else:
        health.note(cause, f"{after.site_id} is undecided: {after.undecided}")
    if (before.undecided is None) == (after.undecided is None):
        return
    ids = {"event_id": event.event_id, "site_id": after.site_id}
    if after.undecided is not None:
        _log.info("undecided", **ids, reason=after.undecided)
    elif after.open is None:
        _log.info("undecided no more", **ids, reason=SETTLED)
