from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st
from medloop_schemas import Event, InvalidEvent, LabelConfirmed, TransientError
from medloop_services.bus.batch import KeyedBatch, MapBatch, Strikes, TooManyErrors
from medloop_services.bus.outgoing import outgoing
from medloop_services.bus.processor import KeyedProcessor, MapProcessor, ServiceState
from medloop_services.bus.received import Received, in_order, receive

START = datetime(2026, 1, 1, tzinfo=UTC)


class Sum(ServiceState):
    total: int = 0


def label(sequence: int, device: str = "device") -> LabelConfirmed:
    return LabelConfirmed(
        time=START + timedelta(seconds=sequence),
        image_id=f"{device}-{sequence}",
        device_id=device,
        site_id="site",
        sequence=sequence,
        class_index=0,
        class_name="normal",
    )


def received(event: LabelConfirmed, offset: int, topic: str = "medloop.labels.v1") -> Received:
    record = outgoing(event, "/test")
    return receive(
        LabelConfirmed,
        topic=topic,
        partition=0,
        offset=offset,
        key=record.key,
        value=record.value,
        headers=record.headers,
        partitions=None,
    )


def processor(step: Callable[[Any, Any], tuple[Any, Sequence[Event]]]) -> KeyedProcessor[Sum]:
    return KeyedProcessor("sum", (LabelConfirmed,), (LabelConfirmed,), Sum, lambda _key: Sum(), step)


def adding(state: Sum, event: LabelConfirmed) -> tuple[Sum, Sequence[Event]]:
    return Sum(total=state.total + event.sequence), (event,)


def batch_of(step: Any, events: Sequence[Received], limit: int = 10) -> KeyedBatch:
    return KeyedBatch(processor(step), {}, events, "/test", Strikes(limit))


def test_a_transient_error_keeps_what_is_done_and_goes_on_there() -> None:
    calls: list[int] = []

    def step(state: Sum, event: LabelConfirmed) -> tuple[Sum, Sequence[Event]]:
        calls.append(event.sequence)
        if event.sequence == 2 and calls.count(2) == 1:
            raise TransientError("away")
        return adding(state, event)

    batch = batch_of(step, [received(label(i), i) for i in range(4)])
    with pytest.raises(TransientError):
        batch.run()
    batch.run()
    assert calls == [0, 1, 2, 2, 3]
    assert len(batch.results.outputs) == 4
    _, stored = batch.states()
    assert stored[0, "device"].state == Sum(total=6)
    assert stored[0, "device"].offsets == {"medloop.labels.v1": 3}


def test_a_refused_event_leaves_the_state_and_is_not_tried_again() -> None:
    def step(state: Sum, event: LabelConfirmed) -> tuple[Sum, Sequence[Event]]:
        if event.sequence == 1:
            raise InvalidEvent("odd", "sequence", "is one")
        return adding(state, event)

    batch = batch_of(step, [received(label(i), i) for i in (0, 1)])
    batch.run()
    letter = batch.results.outputs[-1]
    headers = dict(letter.headers)
    assert letter.topic == "medloop.labels.v1.dlq"
    assert (headers["medloop-error-code"], headers["medloop-error-field"]) == (b"odd", b"sequence")
    assert headers["medloop-offset"] == b"1"
    assert headers["ce_id"] == label(1).event_id.encode(), "the record's own headers are kept"
    assert batch.states()[1][0, "device"].has("medloop.labels.v1", 1)


def test_bugs_in_a_row_stop_the_service_but_single_ones_do_not() -> None:
    def step(state: Sum, event: LabelConfirmed) -> tuple[Sum, Sequence[Event]]:
        if event.sequence % 3:
            raise KeyError("bug")
        return adding(state, event)

    batch_of(step, [received(label(i), i) for i in range(12)], limit=3).run()
    with pytest.raises(TooManyErrors, match="2 unexpected errors in a row"):
        batch_of(step, [received(label(i), i) for i in (1, 2)], limit=2).run()


def test_a_bug_in_a_map_sends_only_its_own_event_away() -> None:
    def double(events: Sequence[Event]) -> list[Sequence[Event]]:
        if any(event.subject == "device-2" for event in events):
            raise ZeroDivisionError
        return [(event,) for event in events]

    mapping = MapProcessor("double", (LabelConfirmed,), (LabelConfirmed,), double)
    batch = MapBatch(mapping, [received(label(i), i) for i in range(5)], "/test", Strikes(3))
    batch.run()
    topics = [record.topic for record in batch.results.outputs]
    assert topics == ["medloop.labels.v1"] * 2 + ["medloop.labels.v1.dlq"] + ["medloop.labels.v1"] * 2


def test_a_record_under_another_key_is_refused() -> None:
    record = outgoing(label(0), "/test")
    wrong = receive(
        LabelConfirmed,
        topic="t",
        partition=0,
        offset=0,
        key=b"other",
        value=record.value,
        headers=(),
        partitions=None,
    )
    assert isinstance(wrong.content, InvalidEvent)
    assert wrong.content.code == "key"


@pytest.mark.parametrize("partition", range(4))
def test_a_record_on_another_partition_than_its_keys_is_refused_and_told_how_to_partition(
    partition: int,
) -> None:
    record = outgoing(label(0), "/test")
    came = receive(
        LabelConfirmed,
        topic="t",
        partition=partition,
        offset=0,
        key=record.key,
        value=record.value,
        headers=(),
        partitions=4,
    )
    own = DefaultPartitioner()(record.key, [0, 1, 2, 3], [0, 1, 2, 3])
    if partition == own:
        assert came.content == label(0)
    else:
        assert isinstance(came.content, InvalidEvent)
        assert came.content.code == "partition"
        assert f"its key's is {own} of 4" in came.content.reason
        assert "murmur2" in came.content.reason


@given(
    times=st.tuples(st.lists(st.integers(0, 50), max_size=12), st.lists(st.integers(0, 50), max_size=12)),
)
def test_merging_keeps_each_topics_offsets_and_prefers_event_time(
    times: tuple[list[int], list[int]],
) -> None:
    topics = [
        [received(label(time), offset, topic) for offset, time in enumerate(each)]
        for topic, each in zip(("first", "second"), times, strict=True)
    ]
    merged = list(in_order(topics))
    assert len(merged) == len(times[0]) + len(times[1])
    for topic, each in zip(("first", "second"), times, strict=True):
        assert [one.offset for one in merged if one.topic == topic] == list(range(len(each)))
    if times[0] == sorted(times[0]) and times[1] == sorted(times[1]):
        events = [one.content.time for one in merged if isinstance(one.content, Event)]
        assert events == sorted(events)


def test_an_output_that_cant_be_written_is_its_own_events_fault_alone() -> None:
    def same(events: Sequence[Event]) -> list[Sequence[Event]]:
        return [
            (event.model_copy(update={"sequence": 10**30}),) if event.subject == "device-2" else (event,)
            for event in events
        ]

    mapping = MapProcessor("same", (LabelConfirmed,), (LabelConfirmed,), same)
    batch = MapBatch(mapping, [received(label(i), i) for i in range(4)], "/test", Strikes(3))
    batch.run()
    topics = [record.topic for record in batch.results.outputs]
    assert topics == ["medloop.labels.v1"] * 2 + ["medloop.labels.v1.dlq", "medloop.labels.v1"]
