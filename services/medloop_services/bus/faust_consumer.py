"""Faust's consumer as medloop makes it: what it does while it looks up where to begin is not forgotten."""

from __future__ import annotations

from collections.abc import Container
from typing import ClassVar, cast

from faust.transport.consumer import RecordMap
from faust.transport.drivers import aiokafka
from faust.types import TP
from faust.types.transports import ConsumerT


class Only(Container[TP]):
    """Partitions that may change while they are fetched from, and are never none.

    aiokafka takes an empty set for every partition, and for a moment after Faust has read its tables back the
    set is empty. What is handed out then Faust throws away, and nobody goes back for it in a partition that
    has no committed offset.
    """

    def __init__(self, partitions: set[TP]) -> None:
        self._partitions = partitions

    def __contains__(self, partition: object) -> bool:
        return partition in self._partitions


class SteadyConsumer(aiokafka.Consumer):
    """A consumer whose offsets do not go back to what they were when it began to look them up.

    Faust 0.15 lets events in first and then asks for the committed offsets, one partition after the other. It
    writes the answers over what has been reached meanwhile. Behind an offset already committed the next one
    then seems to be missing, and Faust waits for it: every event is handled and none is committed any more.
    Behind an offset already read, what lies between passes for a gap and is counted twice: one event a second
    is committed.
    """

    async def perform_seek(self) -> None:
        """Go to the committed offsets; what is read and committed meanwhile counts."""
        # What is left of an earlier assignment says nothing of this one.
        self._read_offset.clear()
        self._committed_offset.clear()
        for partition, committed in (await self.seek_to_committed()).items():
            if committed is not None:
                for reached in (self._read_offset, self._committed_offset):
                    reached[partition] = max(committed, reached[partition] or 0)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> RecordMap:
        wanted = None if active_partitions is None else cast(set[TP], Only(active_partitions))
        return await super()._getmany(wanted, timeout)


class SteadyTransport(aiokafka.Transport):
    """Faust's transport on aiokafka, with that consumer."""

    Consumer: ClassVar[type[ConsumerT]] = SteadyConsumer
