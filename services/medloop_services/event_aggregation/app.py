"""Hands the aggregation to Faust, which keeps its last values in a table."""

from __future__ import annotations

from medloop_services.bus.context import Context
from medloop_services.bus.faust_service import FaustService
from medloop_services.event_aggregation.aggregation import processor


def build(context: Context) -> FaustService:
    """Return the service: one processor, keyed by site, that Faust hosts."""
    return FaustService(name="event_aggregation", processor=processor(context))
