"""Keys go where a Java producer would send them: values from Kafka's own UtilsTest."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner, murmur2
from medloop_services.bus.key_partition import partition_of

SIGNED = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "java"), SIGNED.items())
def test_the_hash_is_javas(key: bytes, java: int) -> None:
    assert murmur2(key) & 0xFFFFFFFF == java & 0xFFFFFFFF
    assert DefaultPartitioner()(key, [0, 1, 2, 3], [0]) == (java & 0x7FFFFFFF) % 4
    assert partition_of(key, 4) == (java & 0x7FFFFFFF) % 4
