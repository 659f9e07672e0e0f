from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_services.replay.errors import RecordingError
from medloop_services.replay.recording import (
    Record,
    RecordingWriter,
    count_records,
    read_recording,
    write_recording,
)


def record(topic: str, partition: int, offset: int, timestamp: int, value: bytes | None = b"{}") -> Record:
    return Record(
        topic, partition, offset, timestamp, b"key", value, (("ce_id", b"\x00\xff"), ("ce_id", b"2"))
    )


records = st.builds(
    Record,
    topic=st.sampled_from(["medloop.images.v1", "medloop.labels.v1"]),
    partition=st.integers(0, 3),
    offset=st.just(0),
    timestamp=st.integers(0, 2**41),
    key=st.none() | st.binary(max_size=8),
    value=st.none() | st.binary(max_size=32),
    headers=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.binary(max_size=4)), max_size=3).map(tuple),
)


def numbered(drawn: list[Record]) -> list[Record]:
    """Give each partition gapless offsets, in the order drawn."""
    ends: dict[tuple[str, int], int] = {}
    result = []
    for each in drawn:
        place = (each.topic, each.partition)
        ends[place] = ends.get(place, -1) + 1
        result.append(
            Record(
                each.topic, each.partition, ends[place], each.timestamp, each.key, each.value, each.headers
            )
        )
    return result


@settings(max_examples=40, deadline=None)
@given(drawn=st.lists(records, max_size=30))
def test_reading_gives_back_every_record_with_partitions_in_order(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Record]
) -> None:
    path = tmp_path_factory.mktemp("recording") / "stream.parquet"
    written = numbered(drawn)
    assert write_recording(path, written) == count_records(path) == len(written)
    back = list(read_recording(path))
    assert sorted(map(repr, back)) == sorted(map(repr, written))
    for place in {(each.topic, each.partition) for each in back}:
        offsets = [each.offset for each in back if (each.topic, each.partition) == place]
        assert offsets == sorted(offsets)


def test_partitions_are_merged_by_timestamp(tmp_path: Path) -> None:
    path = tmp_path / "stream.parquet"
    images = [record("images", 0, offset, 10 * offset) for offset in range(3)]
    labels = [record("labels", 1, offset, 10 * offset + 5) for offset in range(3)]
    write_recording(path, labels + images)
    assert [each.timestamp for each in read_recording(path)] == [0, 5, 10, 15, 20, 25]


def test_a_clock_that_jumps_back_reorders_no_partition(tmp_path: Path) -> None:
    path = tmp_path / "stream.parquet"
    write_recording(path, [record("images", 0, 0, 100), record("images", 0, 1, 50)])
    assert [each.offset for each in read_recording(path)] == [0, 1]


def test_a_recording_longer_than_a_row_group_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "stream.parquet"
    assert write_recording(path, (record("images", 0, n, n) for n in range(2500))) == 2500
    assert [each.offset for each in read_recording(path)] == list(range(2500))


def record_and_raise(path: Path, error: BaseException) -> None:
    with RecordingWriter(path) as writer:
        writer.write(record("images", 0, 0, 0))
        raise error


def test_a_failed_recording_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "stream.parquet"
    with pytest.raises(ZeroDivisionError):
        record_and_raise(path, ZeroDivisionError())
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_recording_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "stream.parquet"
    with pytest.raises(KeyboardInterrupt):
        record_and_raise(path, KeyboardInterrupt())
    assert list(read_recording(path)) == [record("images", 0, 0, 0)]
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_a_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="does not exist"):
        read_recording(tmp_path / "nowhere.parquet")
    text = tmp_path / "text.parquet"
    text.write_text("no")
    with pytest.raises(RecordingError, match="not a Parquet file"):
        read_recording(text)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"topic": ["x"]}), other)
    with pytest.raises(RecordingError, match="no column partition"):
        read_recording(other)


def test_a_place_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="can't be written"):
        write_recording(tmp_path / "file" / "stream.parquet", [])
