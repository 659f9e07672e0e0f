from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_schemas import AuditRecorded, decode, encode
from medloop_schemas.audit import GENESIS
from medloop_services.publisher.audit import AuditChain, BrokenChain, Decision, verify_chains

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def records(count: int, site: str = "ward") -> list[AuditRecorded]:
    chain, made = AuditChain(), []
    for number in range(count):
        chain, record = chain.recorded(
            site,
            EPOCH,
            decision=Decision.PROMOTED,
            version=f"ward-{number}",
            reason="a test",
            evidence={"gain": 0.1 * number, "devices": number, "whole": 1.0, "passed": True, "old": None},
        )
        made.append(record)
    return made


def changed(record: AuditRecorded, **update: object) -> AuditRecorded:
    return record.model_copy(update=update)


def test_the_first_record_follows_the_genesis_hash_and_each_other_its_predecessor() -> None:
    first, second, third = records(3)
    assert first.previous_hash == GENESIS
    assert second.previous_hash == first.record_hash
    assert third.previous_hash == second.record_hash
    assert verify_chains([first, second, third]) == {
        "ward": AuditChain(length=3, last_hash=third.record_hash)
    }


def test_a_chain_survives_the_wire() -> None:
    sent = records(4)
    received = [decode(AuditRecorded, encode(record, "/test").value) for record in sent]
    assert verify_chains(received) == verify_chains(sent)


@given(order=st.permutations(range(5)), repeated=st.integers(0, 4))
def test_neither_order_of_arrival_nor_exact_repeats_matter(order: list[int], repeated: int) -> None:
    made = records(5)
    assert verify_chains([*(made[i] for i in order), made[repeated]]) == verify_chains(made)


def test_sites_have_chains_of_their_own() -> None:
    assert set(verify_chains([*records(2), *records(3, "clinic")])) == {"ward", "clinic"}


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(
    "update",
    [{"reason": "another"}, {"version": "other-1"}, {"actor": "someone"}, {"evidence": {"gain": 9.0}}],
)
def test_a_changed_record_is_found(number: int, update: dict[str, object]) -> None:
    made = records(4)
    made[number] = changed(made[number], **update)
    with pytest.raises(BrokenChain) as found:
        verify_chains(made)
    assert found.value.number == number + 1


@pytest.mark.parametrize("number", range(3))
def test_a_missing_record_is_found(number: int) -> None:
    made = records(4)
    del made[number]
    with pytest.raises(BrokenChain, match="missing") as found:
        verify_chains(made)
    assert found.value.number == number


def test_a_second_record_of_a_number_is_found() -> None:
    made = records(3)
    with pytest.raises(BrokenChain, match="two different"):
        verify_chains([*made, changed(made[1], reason="another")])


def test_a_rewritten_end_shows_in_the_last_hash() -> None:
    made = records(3)
    forged = changed(made[2], reason="another")
    assert verify_chains([*made[:2], forged]) != verify_chains(made)
