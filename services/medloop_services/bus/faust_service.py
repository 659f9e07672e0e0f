"""A service whose processor Faust hosts: joins and last values at a low rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medloop_services.bus.processor import KeyedProcessor


@dataclass(frozen=True, slots=True)
class FaustService:
    """One keyed processor on Faust.

    Its state must hold last values, never counts that a repeat would change: Faust may skip or repeat an
    input after a crash, and both must cost nothing.

    Attributes:
        name: as in `medloop service NAME`; also Faust's application id and consumer group.
        processor: what decides; reads one event type.
    """

    name: str
    processor: KeyedProcessor[Any]

    @property
    def processors(self) -> tuple[KeyedProcessor[Any], ...]:
        """As of a `Service`."""
        return (self.processor,)
