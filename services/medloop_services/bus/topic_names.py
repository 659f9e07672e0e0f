"""The names that derive from a processor's."""

from __future__ import annotations

FAUST_TABLE = "states"


def state_topic(processor: str) -> str:
    """Return the compacted topic on which a keyed processor's states live."""
    return f"medloop.{processor}.state.v1"


def changelog_topic(processor: str) -> str:
    """Return the compacted topic on which Faust keeps the table of a processor's states."""
    return f"{consumer_group(processor)}-{FAUST_TABLE}-changelog"


def consumer_group(processor: str) -> str:
    """Return the consumer group whose replicas share a processor's work."""
    return f"medloop.{processor}"
