"""Faust's consumer: what is handled and committed while it looks up the committed offsets still counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from faust.types import TP
from medloop_services.bus.faust_application import FaustApplication
from medloop_services.bus.faust_consumer import SteadyConsumer

SIGNALS = TP("signals", 0)
FIRST, COMMITTED, READ = 4306, 4310, 4400
"""Where the lookup finds the group, and how far it has come by the time that the lookup ends."""


@pytest.fixture
async def consumer() -> AsyncIterator[SteadyConsumer]:
    application = FaustApplication(
        "committing", broker="kafka://127.0.0.1:1", store="memory://", web_enabled=False
    )
    consumer = application.consumer
    consumer.app.topics._acking_topics.add(SIGNALS.topic)
    yield consumer
    consumer._thread.thread_loop.close()


async def seek(
    consumer: SteadyConsumer,
    monkeypatch: pytest.MonkeyPatch,
    committed: int | None = None,
    read: int | None = None,
    found: int | None = FIRST,
) -> None:
    """Look up the committed offsets, which takes as long as the consumer takes to get so far."""

    async def lookup() -> Mapping[TP, int | None]:
        await asyncio.sleep(0)
        if committed is not None:
            consumer._committed_offset[SIGNALS] = committed
        if read is not None:
            consumer._read_offset[SIGNALS] = read
        return {SIGNALS: found}

    monkeypatch.setattr(consumer, "seek_to_committed", lookup)
    await consumer.perform_seek()


def acknowledge(consumer: SteadyConsumer, first: int, end: int) -> None:
    consumer._acked[SIGNALS] += range(first, end)


async def test_what_follows_a_commit_during_the_lookup_is_committed(
    consumer: SteadyConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seek(consumer, monkeypatch, committed=COMMITTED, read=READ)
    acknowledge(consumer, COMMITTED, READ)
    assert consumer._filter_committable_offsets([SIGNALS]) == {SIGNALS: READ}


async def test_what_was_read_during_the_lookup_is_no_gap(
    consumer: SteadyConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seek(consumer, monkeypatch, read=READ)
    assert consumer._read_offset[SIGNALS] == READ


async def test_the_lookup_counts_where_nothing_has_been_read(
    consumer: SteadyConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seek(consumer, monkeypatch)
    assert consumer._read_offset[SIGNALS] == FIRST
    acknowledge(consumer, FIRST, READ)
    assert consumer._filter_committable_offsets([SIGNALS]) == {SIGNALS: READ}


async def test_an_earlier_assignment_does_not_count(
    consumer: SteadyConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer._read_offset[SIGNALS], consumer._committed_offset[SIGNALS] = READ, COMMITTED
    await seek(consumer, monkeypatch)
    assert (consumer._read_offset[SIGNALS], consumer._committed_offset[SIGNALS]) == (FIRST, FIRST)


async def test_a_group_that_has_committed_nothing_begins_at_any_offset(
    consumer: SteadyConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seek(consumer, monkeypatch, found=None)
    assert consumer._read_offset[SIGNALS] is None
    acknowledge(consumer, COMMITTED, READ)
    assert consumer._filter_committable_offsets([SIGNALS]) == {SIGNALS: READ}


async def test_when_no_partition_is_active_none_is_fetched_from(
    consumer: SteadyConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partitions change while the fetch waits, and an empty set would be every partition to aiokafka."""
    asked: list[Any] = []

    async def getmany(active_partitions: Any, timeout: float) -> dict[TP, list[Any]]:
        asked.append(active_partitions)
        return {}

    monkeypatch.setattr(consumer._thread, "getmany", getmany)
    active = {SIGNALS}
    await consumer._getmany(active, 1.0)
    assert SIGNALS in asked[0]
    active.clear()
    assert asked[0]
    assert SIGNALS not in asked[0]
    active.add(SIGNALS)
    assert SIGNALS in asked[0]
