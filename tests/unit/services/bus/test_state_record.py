from __future__ import annotations

from typing import ClassVar

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_schemas import ConfigurationError
from medloop_services.bus.processor import ServiceState
from medloop_services.bus.state_record import Kept, Record, from_records, to_records
from pydantic import Field


class Memory(ServiceState):
    entries: ClassVar[tuple[str, ...]] = ("items",)

    count: int = 0
    items: dict[str, int] = Field(default_factory=dict)


class Forgetful(ServiceState):
    other: int


def apply(log: list[Record]) -> dict[bytes, bytes]:
    latest: dict[bytes, bytes] = {}
    for key, value in log:
        if value is None:
            latest.pop(key, None)
        else:
            latest[key] = value
    return latest


states = st.builds(
    Memory, count=st.integers(0, 9), items=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))
)


@given(history=st.lists(states, min_size=1, max_size=8))
def test_whatever_the_moment_of_a_crash_a_whole_state_is_read_back(history: list[Memory]) -> None:
    log: list[Record] = []
    written = [Memory()]
    kept = Kept(Memory())
    for offset, state in enumerate(history):
        records, kept = to_records("device", kept, state, {"images": offset})
        for record in records:
            log.append(record)
            found = from_records(Memory, apply(log)).get("device")
            assert found is None or found.state in (written[-1], state)
        assert from_records(Memory, apply(log))["device"] == kept
        written.append(state)
    assert len(apply(log)) == 1 + len(history[-1].items), "what is replaced is deleted"


def test_only_what_changed_is_written() -> None:
    first = Memory(count=1, items={"a": 1, "b": 2})
    _, kept = to_records("k", Kept(Memory()), first, {"t": 0})
    records, _ = to_records("k", kept, Memory(count=2, items={**first.items, "b": 3}), {"t": 1})
    kinds = [(orjson.loads(key)[1:3], value is None) for key, value in records]
    assert kinds == [(["items", "b"], False), ([], False), (["items", "b"], True)]


def test_offsets_say_what_is_in_the_state() -> None:
    kept = Kept(Memory(), {"images": 4})
    assert kept.has("images", 4)
    assert not kept.has("images", 5)
    assert not kept.has("labels", 0)


def test_a_state_of_another_version_says_what_to_do() -> None:
    records, _ = to_records("k", Kept(Memory()), Memory(count=1), {})
    with pytest.raises(ConfigurationError, match="delete the state topic"):
        from_records(Forgetful, apply(records))
