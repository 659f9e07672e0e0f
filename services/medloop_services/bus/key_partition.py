"""Which partition a key is on, so that all events of a key meet in one replica."""

from __future__ import annotations

from functools import lru_cache

from aiokafka.partitioner import murmur2


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """Java's default, which is aiokafka's too: murmur2(key) & 0x7fffffff, modulo the partitions."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
