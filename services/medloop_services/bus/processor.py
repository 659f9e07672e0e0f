"""What a service is, before anything runs it: processors around pure cores. No Kafka in here.

A processor says which events it reads, which it writes, and how to decide. The Kafka loop
(`bus/kafka_loop.py`) and the in-process loop (`medloop_services/loop.py`) run the same processors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from medloop_schemas import Event, InvalidEvent
from pydantic import BaseModel, ConfigDict


class ServiceState(BaseModel):
    """What a service remembers of one key: frozen, always replaced, never changed in place.

    Fields named in `entries` are dictionaries whose items are stored one Kafka record each, so that a large
    state is not written again for a small change. Everything else is one record, written last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: ClassVar[tuple[str, ...]] = ()


S = TypeVar("S", bound=ServiceState)


@dataclass(frozen=True, slots=True)
class KeyedProcessor(Generic[S]):
    """Remembers one state a key: `step(state, event) → (state, outputs)`, in the order of the key's events.

    Attributes:
        name: consumer group `medloop.{name}` and state topic `medloop.{name}.state.v1` derive from it.
        inputs: event types read; their topics share key and partition count.
        outputs: event types written.
        state: the state's model.
        initial: a key's state before its first event.
        step: the core. Raises InvalidEvent for an event it can't handle, TransientError to be called again.
    """

    name: str
    inputs: tuple[type[Event], ...]
    outputs: tuple[type[Event], ...]
    state: type[S]
    initial: Callable[[str], S]
    step: Callable[[S, Event], tuple[S, Sequence[Event]]]


@dataclass(frozen=True, slots=True)
class MapProcessor:
    """Remembers nothing: each event's outputs depend on it (and on what is followed) alone.

    Attributes:
        name: consumer group `medloop.{name}`.
        inputs: event types read.
        outputs: event types written.
        map: a batch of events → for each, its outputs or why it can't be handled.
    """

    name: str
    inputs: tuple[type[Event], ...]
    outputs: tuple[type[Event], ...]
    map: Callable[[Sequence[Event]], Sequence[Sequence[Event] | InvalidEvent]]


Processor = KeyedProcessor[Any] | MapProcessor


@dataclass(frozen=True, slots=True)
class Follower:
    """A topic that every replica reads whole, from its beginning, before its processors start.

    Attributes:
        event: the event type followed.
        apply: folds one event into what the replica knows; a repeat must change nothing.
    """

    event: type[Event]
    apply: Callable[[Any], None]


def _always_ready() -> str | None:
    return None


def _nothing() -> Sequence[Event]:
    return ()


@dataclass(frozen=True, slots=True)
class Service:
    """One process's work.

    Attributes:
        name: as in `medloop service NAME`.
        processors: what it does, each with a consumer group of its own.
        followers: what it must know whole before it starts.
        waiting_for: a sentence on what is missing before processors may read, or None.
        bootstrap: events to send at every start; their ids make a repeat harmless.
    """

    name: str
    processors: tuple[Processor, ...]
    followers: tuple[Follower, ...] = ()
    waiting_for: Callable[[], str | None] = field(default=_always_ready)
    bootstrap: Callable[[], Sequence[Event]] = field(default=_nothing)
