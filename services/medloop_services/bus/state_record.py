"""A key's state as Kafka records: exact after any crash, cheap to change a little.

A state is one main record and one record for each item of its `entries`. An item's record key holds the
digest of its value, so a changed item is a new record and the old one stays readable until the main record
that no longer names it has been written; only then is the old one deleted. Whatever the moment of a crash,
the last main record names items that are there. Items that no main record names are ignored.

Record keys are JSON: `[key]` for the main record, `[key, field, name, digest]` for an item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

import orjson
from medloop_schemas import ConfigurationError
from pydantic import ValidationError
from pydantic_core import to_json

from medloop_services.bus.processor import ServiceState

FORMAT = 1
DIGEST_DIGITS = 16

S = TypeVar("S", bound=ServiceState)
Items = Mapping[str, Mapping[str, str]]
"""Entry field → item name → digest of the value as it stands on the topic."""


@dataclass(frozen=True, slots=True)
class Kept(Generic[S]):
    """A key's state and what of its inputs is in it.

    Attributes:
        offsets: input topic → last applied offset (a key has one partition of each).
        items: what of the entries is on the state topic.
    """

    state: S
    offsets: Mapping[str, int] = field(default_factory=dict)
    items: Items = field(default_factory=dict)

    def has(self, topic: str, offset: int) -> bool:
        """Return whether an input record is already in the state."""
        return offset <= self.offsets.get(topic, -1)


Record = tuple[bytes, bytes | None]
"""Key and value; a value of None deletes."""


def to_records(
    key: str, before: Kept[S], state: S, offsets: Mapping[str, int]
) -> tuple[list[Record], Kept[S]]:
    """Return the records that turn a key's stored state into another, in the order to be written.

    Args:
        key: the events' key.
        before: what is stored, as `to_records` or `from_records` returned it.
        state: the new state.
        offsets: last applied offset by input topic.
    """
    new: list[Record] = []
    old: list[Record] = []
    items: dict[str, dict[str, str]] = {}
    for name in type(state).entries:
        stored = before.items.get(name, {})
        written, items[name] = _changed(key, name, stored, (before.state, state))
        new += written
        gone = [(item, digest) for item, digest in stored.items() if items[name].get(item) != digest]
        old += [(_item_key(key, name, item, digest), None) for item, digest in gone]
    main = {
        "format": FORMAT,
        "schema": schema_of(type(state)),
        "offsets": dict(offsets),
        "items": items,
        "state": state.model_dump(mode="json", exclude=set(type(state).entries)),
    }
    return [*new, (_main_key(key), orjson.dumps(main)), *old], Kept(state, dict(offsets), items)


def from_records(model: type[S], records: Mapping[bytes, bytes]) -> dict[str, Kept[S]]:
    """Return every key's state from the latest value of each record key.

    Raises:
        ConfigurationError: a state was written by a version that this one can't read.
    """
    keys = {raw: orjson.loads(raw) for raw in records}
    return {
        parts[0]: _restore(model, parts[0], orjson.loads(records[raw]), records)
        for raw, parts in keys.items()
        if len(parts) == 1
    }


@cache
def schema_of(model: type[ServiceState]) -> str:
    """Return a fingerprint of a state's fields and their types."""
    schema = orjson.dumps(model.model_json_schema(), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(schema).hexdigest()[:DIGEST_DIGITS]


def _restore(model: type[S], key: str, main: dict[str, Any], records: Mapping[bytes, bytes]) -> Kept[S]:
    entries = {
        name: {
            item: orjson.loads(records[_item_key(key, name, item, digest)]) for item, digest in named.items()
        }
        for name, named in main["items"].items()
    }
    try:
        state = model.model_validate({**main["state"], **entries})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(
            f"the stored state of {key!r} (schema {main['schema']}) can't be read as {model.__name__} "
            f"({schema_of(model)}): {'.'.join(map(str, first['loc']))}: {first['msg']}. Run the version that "
            "wrote it, or delete the state topic to start from the beginning of the inputs."
        ) from None
    return Kept(state, main["offsets"], main["items"])


def _changed(
    key: str, field_name: str, stored: Mapping[str, str], states: tuple[S, S]
) -> tuple[list[Record], dict[str, str]]:
    """Return the records of the items that are new or changed, and every item's digest."""
    before, now = (getattr(state, field_name) for state in states)
    records: list[Record] = []
    digests: dict[str, str] = {}
    for name, value in now.items():
        item = str(name)
        # Values are frozen and replaced, so the same object is the same content.
        if item in stored and before.get(name) is value:
            digests[item] = stored[item]
            continue
        content = to_json(value)
        digests[item] = hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]
        if digests[item] != stored.get(item):
            records.append((_item_key(key, field_name, item, digests[item]), content))
    return records, digests


def _main_key(key: str) -> bytes:
    return orjson.dumps([key])


def _item_key(key: str, field_name: str, item: str, digest: str) -> bytes:
    return orjson.dumps([key, field_name, item, digest])
