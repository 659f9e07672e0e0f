"""Topics to a Parquet file and back: one row a record, with everything that Kafka keeps of it."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
from medloop_schemas import Message

from medloop_services.replay.errors import RecordingError

ROWS_A_GROUP = 1024
"""Records written at once."""

SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))),
    ]
)


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record as it lay in its topic; `timestamp` is in ms since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    def message(self) -> Message:
        """Return the record to send again."""
        return Message(self.topic, self.key or b"", self.value or b"", self.headers)


class RecordingWriter:
    """Writes records as they come; the file appears under its name when the writer is left without an error.

    A writer that is left by Ctrl-C keeps what it has: the recording is shorter, never broken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._rows: list[Record] = []
        self._writer: pq.ParquetWriter | None = None
        self.count = 0

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._unfinished, SCHEMA, compression="zstd")
        except OSError as error:
            raise RecordingError(
                f"{self._path} can't be written: {error.strerror}; choose another path"
            ) from None
        return self

    def write(self, record: Record) -> None:
        """Append a record."""
        self._rows.append(record)
        self.count += 1
        if len(self._rows) >= ROWS_A_GROUP:
            self._write_rows()

    def _write_rows(self) -> None:
        if self._writer is not None and self._rows:
            self._writer.write_table(_table(self._rows))
            self._rows = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = kind is not None and issubclass(kind, Exception)
        try:
            if not failed:
                self._write_rows()
            if self._writer is not None:
                self._writer.close()
            if not failed:
                os.replace(self._unfinished, self._path)
        except OSError as problem:
            raise RecordingError(
                f"{self._path} can't be written: {problem.strerror}; free some space or choose another path"
            ) from None
        finally:
            self._unfinished.unlink(missing_ok=True)


def write_recording(path: Path, records: Iterable[Record]) -> int:
    """Write a recording and return how many records it holds.

    Raises:
        RecordingError: the file can't be written.
    """
    with RecordingWriter(path) as writer:
        for record in records:
            writer.write(record)
    return writer.count


def read_recording(path: Path) -> Iterator[Record]:
    """Return a recording's records: every partition in its own order, partitions merged by timestamp.

    Raises:
        RecordingError: the file is missing, or not a recording.
    """
    table = _read(path).sort_by([(name, "ascending") for name in ("topic", "partition", "offset")])
    places = zip(table["topic"].to_pylist(), table["partition"].to_pylist(), strict=True)
    starts: dict[tuple[str, int], list[int]] = {}
    for row, place in enumerate(places):
        starts.setdefault(place, [row, row])[1] = row + 1
    partitions = (_rows(table.slice(first, last - first)) for first, last in starts.values())
    # heapq.merge never reorders within one input, so an odd timestamp can't break a partition's order.
    return heapq.merge(*partitions, key=lambda record: record.timestamp)


def count_records(path: Path) -> int:
    """Return how many records a recording holds.

    Raises:
        RecordingError: the file is missing, or not a recording.
    """
    return int(_opened(path).metadata.num_rows)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise RecordingError(f"{path} does not exist; make it with `medloop record`") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise RecordingError(f"{path} is not a Parquet file ({error}); record it again") from None


def _read(path: Path) -> pa.Table:
    file = _opened(path)
    missing = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
    if missing:
        raise RecordingError(
            f"{path} has no column {missing[0]}, so it is not a recording; make one with `medloop record`"
        )
    try:
        return file.read(SCHEMA.names).cast(SCHEMA)
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise RecordingError(f"{path} is damaged ({error}); record it again") from None


def _table(records: list[Record]) -> pa.Table:
    return pa.table(
        {
            "topic": [record.topic for record in records],
            "partition": [record.partition for record in records],
            "offset": [record.offset for record in records],
            "timestamp": [record.timestamp for record in records],
            "key": [record.key for record in records],
            "value": [record.value for record in records],
            "headers": [
                [{"name": name, "value": value} for name, value in record.headers] for record in records
            ],
        },
        schema=SCHEMA,
    )


def _rows(table: pa.Table) -> Iterator[Record]:
    for batch in table.to_batches(max_chunksize=ROWS_A_GROUP):
        timestamps = batch["timestamp"].cast(pa.int64()).to_pylist()
        for row, timestamp in zip(batch.to_pylist(), timestamps, strict=True):
            yield Record(
                topic=row["topic"],
                partition=row["partition"],
                offset=row["offset"],
                timestamp=timestamp,
                key=row["key"],
                value=row["value"],
                headers=tuple((header["name"], header["value"]) for header in row["headers"] or ()),
            )
