"""Faust's application as medloop makes it: skips no input when it starts, signs in as every client does."""

from __future__ import annotations

from functools import cached_property

import faust
from faust.types import TransportT
from faust.types.tables import TableManagerT
from mode.utils.queues import FlowControlEvent

from medloop_services.bus.connection import tls_context
from medloop_services.bus.faust_consumer import SteadyTransport
from medloop_services.bus.faust_recovery import LoudTableManager
from medloop_services.bus.settings import BusSettings


class SteadyFlow(FlowControlEvent):
    """Flow control that empties the buffers only when a stopped flow goes on.

    Faust 0.15 resumes twice after it has read its tables back. The second time the flow is running, events
    may have been buffered since the first, and to empty the buffers then is to skip them: they are never
    handled, and as the gap is never acknowledged, no offset after it is ever committed.
    """

    def resume(self) -> None:
        """Let events flow; nothing happens where they do."""
        if not self.is_active():
            super().resume()


class FaustApplication(faust.App):
    """A Faust application that skips no input when it starts, and commits what it has handled."""

    @cached_property
    def flow_control(self) -> FlowControlEvent:
        """What stops and resumes every stream of the application."""
        return SteadyFlow(loop=self.loop)

    @cached_property
    def tables(self) -> TableManagerT:
        """Every table of the application, and what reads them back."""
        return LoudTableManager(app=self, beacon=self.beacon)

    def _new_transport(self) -> TransportT:
        return SteadyTransport(self.conf.broker_consumer, self)


def credentials(settings: BusSettings) -> faust.SASLCredentials | faust.SSLCredentials | None:
    """Return what `connection.client_arguments` says, as Faust takes it; None for a plain connection.

    Raises:
        ConfigurationError: a certificate or key can't be read.
    """
    context = tls_context(settings)
    if settings.signs_in and settings.kafka_password is not None:
        return faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            ssl_context=context,
            mechanism=settings.kafka_sasl_mechanism,
        )
    return None if context is None else faust.SSLCredentials(context)
