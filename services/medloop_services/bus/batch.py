"""What a processor makes of a batch, before anything is sent: no Kafka in here, nothing is written.

A batch is worked off event by event and can be gone on with after a TransientError: what has been handled
stays handled, and the event that failed is the next one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from medloop_schemas import Event, InvalidEvent, MedloopError, TransientError

from medloop_services.bus.dead_letter import dead_letter, unhandled
from medloop_services.bus.decisions import log_decision
from medloop_services.bus.outgoing import Outgoing, outgoing
from medloop_services.bus.processor import KeyedProcessor, MapProcessor, ServiceState
from medloop_services.bus.received import Received
from medloop_services.bus.state_record import Kept, to_records
from medloop_services.bus.topic_names import state_topic

log = structlog.get_logger()

Place = tuple[int, str]
"""A key, with its partition."""


class TooManyErrors(MedloopError):
    """Unexpected errors came one after the other: this is not about single events, and a person must look."""

    code = "too-many-errors"


@dataclass(slots=True)
class Strikes:
    """Counts unexpected errors in a row, over batches."""

    limit: int
    in_a_row: int = 0

    def hit(self, error: Exception) -> None:
        """Count one; raises TooManyErrors at the limit."""
        self.in_a_row += 1
        if self.in_a_row >= self.limit:
            raise TooManyErrors(
                f"{self.in_a_row} unexpected errors in a row, the last: {type(error).__name__}: {error}"
            ) from error

    def forget(self) -> None:
        """An event has been handled."""
        self.in_a_row = 0


@dataclass(slots=True)
class Results:
    """What a batch has led to so far.

    Attributes:
        outputs: events and dead letters, in the order they were decided.
        handled: events by input topic; `repeats`: those skipped; `dead`: dead letters by code.
    """

    outputs: list[Outgoing] = field(default_factory=list)
    handled: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)

    def take(self, received: Received, events: Sequence[Event], source: str) -> None:
        """An event has been handled."""
        if isinstance(received.content, Event):
            for event in events:
                log_decision(event, cause=received.content)
        self.outputs += [outgoing(event, source) for event in events]
        self.handled[received.topic] += 1

    def refuse(self, received: Received, reason: InvalidEvent, source: str) -> None:
        """An event can't be handled."""
        self.outputs.append(dead_letter(received, reason, source))
        self.dead[reason.code] += 1
        log.warning(
            "dead letter",
            event_id=_event_id(received),
            topic=received.topic,
            partition=received.partition,
            offset=received.offset,
            code=reason.code,
            field=reason.field,
            reason=reason.reason,
        )


class KeyedBatch:
    """Applies a keyed processor to a batch.

    Args:
        processor: what decides.
        kept: the states of the partitions at hand; not changed.
        received: the batch, in the order to be handled.
        source: CloudEvents source of the outputs.
        strikes: counts unexpected errors in a row.

    Attributes:
        touched: the states that the batch has led to.
    """

    def __init__(
        self,
        processor: KeyedProcessor[Any],
        kept: dict[Place, Kept[Any]],
        received: Iterable[Received],
        source: str,
        strikes: Strikes,
    ) -> None:
        self._processor = processor
        self._kept = kept
        self._waiting = deque(received)
        self._source = source
        self._strikes = strikes
        self.touched: dict[Place, Kept[Any]] = {}
        self.results = Results()

    def run(self) -> None:
        """Handle what is waiting.

        Raises:
            TransientError: something is away; call again later.
            TooManyErrors: stop.
        """
        while self._waiting:
            self._handle(self._waiting[0])
            self._waiting.popleft()

    def states(self) -> tuple[list[Outgoing], dict[Place, Kept[Any]]]:
        """Return the records of the states touched, and the states by key."""
        topic = state_topic(self._processor.name)
        records: list[Outgoing] = []
        stored: dict[Place, Kept[Any]] = {}
        for (partition, key), touched in self.touched.items():
            before = self._kept.get((partition, key)) or Kept(self._processor.initial(key))
            written, stored[partition, key] = to_records(key, before, touched.state, touched.offsets)
            records += [Outgoing(topic, name, value, partition=partition) for name, value in written]
        return records, stored

    def _handle(self, received: Received) -> None:
        event = received.content
        if isinstance(event, InvalidEvent):
            self.results.refuse(received, event, self._source)
            return
        place = (received.partition, event.key)
        known = self.touched.get(place) or self._kept.get(place) or Kept(self._processor.initial(event.key))
        if known.has(received.topic, received.offset):
            self.results.repeats[received.topic] += 1
            return
        state = self._decide(known.state, event, received)
        self.touched[place] = Kept(state, {**known.offsets, received.topic: received.offset})

    def _decide(self, state: ServiceState, event: Event, received: Received) -> ServiceState:
        try:
            changed: ServiceState
            changed, events = self._processor.step(state, event)
            self.results.take(received, events, self._source)
        except (TransientError, TooManyErrors):
            raise
        except InvalidEvent as reason:
            self.results.refuse(received, reason, self._source)
            return state
        except Exception as error:
            self.results.refuse(received, unhandled(error), self._source)
            self._strikes.hit(error)
            return state
        self._strikes.forget()
        return changed


class MapBatch:
    """Applies a map processor to a batch; arguments as of `KeyedBatch`."""

    def __init__(
        self, processor: MapProcessor, received: Iterable[Received], source: str, strikes: Strikes
    ) -> None:
        self._processor = processor
        self._waiting = list(received)
        self._source = source
        self._strikes = strikes
        self.results = Results()

    def run(self) -> None:
        """Handle what is waiting; raises as `KeyedBatch.run`."""
        outcomes = self._outcomes([one.content for one in self._waiting if isinstance(one.content, Event)])
        for received in self._waiting:
            outcome = received.content if isinstance(received.content, InvalidEvent) else outcomes.popleft()
            if isinstance(outcome, InvalidEvent):
                self.results.refuse(received, outcome, self._source)
            else:
                self._take(received, outcome)
        self._waiting = []

    def _take(self, received: Received, events: Sequence[Event]) -> None:
        try:
            self.results.take(received, events, self._source)
        except Exception as error:  # an output that can't be written is its own event's fault alone
            self.results.refuse(received, unhandled(error), self._source)
            self._strikes.hit(error)

    def _outcomes(self, events: list[Event]) -> deque[Sequence[Event] | InvalidEvent]:
        try:
            return deque(self._processor.map(events) if events else ())
        except TransientError:
            raise
        except Exception:
            # One event is to blame; alone, each shows whether it is the one.
            return deque(self._alone(event) for event in events)

    def _alone(self, event: Event) -> Sequence[Event] | InvalidEvent:
        try:
            (outcome,) = self._processor.map([event])
        except TransientError:
            raise
        except InvalidEvent as reason:
            return reason
        except Exception as error:
            self._strikes.hit(error)
            return unhandled(error)
        self._strikes.forget()
        return outcome


def _event_id(received: Received) -> str | None:
    return received.content.event_id if isinstance(received.content, Event) else None
