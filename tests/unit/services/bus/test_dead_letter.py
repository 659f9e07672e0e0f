"""A dead letter holds the record, and fits into a cluster with Kafka's own limit however large that was."""

from __future__ import annotations

from datetime import UTC, datetime

from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st
from medloop_schemas import InvalidEvent
from medloop_schemas.contract import DEAD_LETTER_HEADERS
from medloop_schemas.image import Frame, ImageAcquired
from medloop_services.bus.dead_letter import dead_letter
from medloop_services.bus.dead_letters import read_letter
from medloop_services.bus.outgoing import Outgoing, outgoing
from medloop_services.bus.received import Received

KAFKAS_OWN_LIMIT = 1_048_588
REASON = InvalidEvent("json", "", "not JSON")


def received(
    value: bytes | None, key: bytes | None = b"device", headers: tuple[tuple[str, bytes], ...] = ()
) -> Received:
    return Received("medloop.images.v1", 3, 17, key, value, headers, REASON)


def read_again(letter: Outgoing) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(letter.topic, 0, 0, 0, 0, letter.key, letter.value, None, -1, -1, letter.headers)


def size(letter: Outgoing) -> int:
    told = sum(len(name) + len(value) for name, value in letter.headers)
    return len(letter.key or b"") + len(letter.value or b"") + told


@given(value=st.none() | st.binary(max_size=200), key=st.none() | st.binary(max_size=50))
def test_a_record_of_any_bytes_is_held_whole(value: bytes | None, key: bytes | None) -> None:
    letter = dead_letter(received(value, key, (("ce_id", b"1"),)), REASON, "/medloop/test/1")
    found = read_letter(read_again(letter))
    assert (found.key, found.value, found.headers, found.cut_bytes) == (key, value, (("ce_id", b"1"),), 0)
    assert (found.place, found.code, found.reason) == ("medloop.images.v1:3:17", "json", "not JSON")
    told = {name for name, _ in letter.headers if name.startswith("medloop-")}
    assert told == set(DEAD_LETTER_HEADERS)


def test_a_record_that_is_far_too_large_is_cut_and_says_so() -> None:
    whole = received(b"v" * 16_000_000, b"k" * 100_000, (("note", b"h" * 100_000),))
    letter = dead_letter(whole, InvalidEvent("json", "", "r" * 100_000), "/medloop/test/1")
    assert size(letter) < KAFKAS_OWN_LIMIT
    found = read_letter(read_again(letter))
    kept = len(found.key or b"") + len(found.value or b"")
    assert found.cut_bytes == 16_000_000 + 100_000 + 100_000 + len("note") - kept


def test_the_largest_image_in_a_message_is_held_whole() -> None:
    image = ImageAcquired(
        time=datetime(2026, 1, 1, tzinfo=UTC),
        image_id="i" * 128,
        device_id="d" * 128,
        site_id="s" * 128,
        study_id="t" * 128,
        sequence=0,
        frame=Frame.inline(bytes(512 * 1024), height=512, width=1024),
    )
    record = outgoing(image, "/test")
    letter = dead_letter(received(record.value, record.key, record.headers), REASON, "/medloop/test/1")
    assert letter.value == record.value
    assert read_letter(read_again(letter)).cut_bytes == 0


def test_a_letter_that_somebody_else_wrote_can_be_read() -> None:
    record = ConsumerRecord(
        "medloop.images.v1.dlq", 2, 9, 0, 0, None, b"?", None, -1, -1,
        (("medloop-partition", b"abc"), ("medloop-offset", b""), ("note", None)),
    )  # fmt: skip
    found = read_letter(record)
    assert (found.place, found.code, found.headers) == ("medloop.images.v1:2:-1", "unknown", (("note", b""),))
