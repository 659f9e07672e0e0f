"""The names that derive from a processor's."""

from __future__ import annotations


def state_topic(processor: str) -> str:
    """Return the compacted topic on which a keyed processor's states live."""
    return f"medloop.{processor}.state.v1"


def consumer_group(processor: str) -> str:
    """Return the consumer group whose replicas share a processor's work."""
    return f"medloop.{processor}"
