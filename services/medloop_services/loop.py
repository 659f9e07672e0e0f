"""The loop in one process: the services' own processors, joined by a queue instead of Kafka.

The one place that may import every service. `medloop simulate` and the tests run the loop here; because cores
have no clock and no globals, the same stream and settings give the same events as on a broker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from medloop_schemas import Event, InvalidEvent

from medloop_services.bus.context import Context
from medloop_services.bus.processor import KeyedProcessor, MapProcessor, Processor, Service, ServiceState
from medloop_services.drift_detection.app import build as build_drift_detection
from medloop_services.event_aggregation.aggregation import processor as aggregation_processor
from medloop_services.feature_stats.app import build as build_feature_stats
from medloop_services.federation.app import build as build_federation
from medloop_services.inference.app import build as build_inference
from medloop_services.online_learner.app import build as build_online_learner
from medloop_services.publisher.app import build as build_publisher


def services(context: Context) -> tuple[Service, ...]:
    """Return all seven services, built from one context."""
    return (
        build_publisher(context),
        build_inference(context),
        build_feature_stats(context),
        build_drift_detection(context),
        Service(name="event_aggregation", processors=(aggregation_processor(context),)),
        build_online_learner(context),
        build_federation(context),
    )


def measuring(context: Context) -> tuple[Service, ...]:
    """Return what measures images by a site's first release: publisher, inference and feature_stats."""
    return build_publisher(context), build_inference(context), build_feature_stats(context)


def monitoring(context: Context) -> tuple[Service, ...]:
    """Return what watches and changes nothing: `measuring` and drift_detection."""
    return (*measuring(context), build_drift_detection(context))


class InProcessLoop:
    """Runs processors first in, first out: an event's outputs come after everything sent before it.

    Args:
        running: the services; their bootstrap events are sent at once.
        observe: called with every event, in order.
    """

    def __init__(self, running: Sequence[Service], observe: Callable[[Event], None]) -> None:
        self._observe = observe
        self._followers: dict[type[Event], list[Callable[[Any], None]]] = {}
        self._readers: dict[type[Event], list[Processor]] = {}
        self._states: dict[tuple[str, str], ServiceState] = {}
        self._queue: deque[Event] = deque()
        self.dead_letters: list[tuple[Event, InvalidEvent]] = []
        for service in running:
            for follower in service.followers:
                self._followers.setdefault(follower.event, []).append(follower.apply)
            for processor in service.processors:
                for event_type in processor.inputs:
                    self._readers.setdefault(event_type, []).append(processor)
        for service in running:
            self.publish(service.bootstrap())

    def publish(self, events: Iterable[Event]) -> None:
        """Send events and run until nothing is left to do."""
        self._queue.extend(events)
        while self._queue:
            event = self._queue.popleft()
            self._observe(event)
            for apply in self._followers.get(type(event), ()):
                apply(event)
            for processor in self._readers.get(type(event), ()):
                self._queue.extend(self._process(processor, event))

    def states(self, processor: str) -> dict[str, ServiceState]:
        """Return what a keyed processor remembers, by key."""
        return {key: state for (name, key), state in self._states.items() if name == processor}

    def _process(self, processor: Processor, event: Event) -> Sequence[Event]:
        try:
            if isinstance(processor, KeyedProcessor):
                return self._step(processor, event)
            return self._map(processor, event)
        except InvalidEvent as reason:
            self.dead_letters.append((event, reason))
            return ()

    def _step(self, processor: KeyedProcessor[Any], event: Event) -> Sequence[Event]:
        place = (processor.name, event.key)
        state = self._states.get(place)
        if state is None:
            state = processor.initial(event.key)
        self._states[place], outputs = processor.step(state, event)
        return outputs

    def _map(self, processor: MapProcessor, event: Event) -> Sequence[Event]:
        (outcome,) = processor.map([event])
        if isinstance(outcome, InvalidEvent):
            raise outcome
        return outcome
