from __future__ import annotations

from datetime import timedelta

import pytest
from medloop_schemas import InvalidEvent, Order, ReleaseOrdered, ReleaseStage
from medloop_services.publisher.audit import Decision, verify_chains
from medloop_services.publisher.settings import PublisherSettings
from publisher_desk import (
    EPOCH,
    FIRST,
    NEW,
    OLD,
    SETTINGS,
    Desk,
    canary_examples,
    candidate,
)

PERSON = "a.physicist"


def order(wanted: Order, version: str = "ward-1", order_id: str = "order-1") -> ReleaseOrdered:
    return ReleaseOrdered(
        time=EPOCH + timedelta(days=9),
        site_id="ward",
        order_id=order_id,
        order=wanted,
        version=version,
        person=PERSON,
        reason="seen by the board",
    )


def desk(*, approval: bool = False) -> Desk:
    settings = PublisherSettings(**SETTINGS.model_dump() | {"approval": approval})
    return Desk(settings=settings).send(*OLD, *NEW)


def tried(*, approval: bool = False) -> Desk:
    return desk(approval=approval).send(candidate(), *canary_examples([True] * 6))


def refused(at: Desk, wrong: ReleaseOrdered) -> InvalidEvent:
    before = at.state
    with pytest.raises(InvalidEvent) as caught:
        at.send(wrong)
    assert at.state == before
    return caught.value


def test_with_approval_a_tried_version_waits_for_a_person() -> None:
    waiting = tried(approval=True)
    assert waiting.decisions[-1] == Decision.CANARY_PASSED
    assert waiting.state.stable == FIRST
    waiting.send(*canary_examples([True] * 3, start=6000))
    assert waiting.decisions.count(Decision.CANARY_PASSED) == 1
    waiting.send(order(Order.APPROVE))
    assert waiting.releases[-1].stage is ReleaseStage.STABLE
    assert waiting.state.stable == waiting.releases[-1]
    record = waiting.records[-1]
    assert (record.decision, record.actor, record.reason) == (
        Decision.PROMOTED,
        PERSON,
        "seen by the board",
    )
    assert record.evidence["order_id"] == order(Order.APPROVE).event_id
    verify_chains(waiting.chain)


def test_what_waits_for_approval_is_still_rolled_back_when_it_harms() -> None:
    waiting = tried(approval=True)
    waiting.evaluator.right["ward-0"] = {"old", "new"}
    waiting.send(*canary_examples([False] * 12, start=6000))
    assert waiting.decisions[-1] == Decision.ROLLED_BACK
    assert waiting.records[-1].actor == "publisher"


def test_what_is_still_being_tried_cannot_be_approved() -> None:
    error = refused(desk(approval=True).send(candidate(), *canary_examples([True] * 2)), order(Order.APPROVE))
    assert "still being tried: 2 labelled images" in error.reason


@pytest.mark.parametrize("wanted", [Order.APPROVE, Order.REJECT])
def test_an_order_about_another_version_does_nothing(wanted: Order) -> None:
    error = refused(tried(approval=True), order(wanted, "ward-2"))
    assert error.field == "version"
    assert "ward-2" in error.reason


def test_a_person_ends_a_trial() -> None:
    ended = desk().send(candidate(), order(Order.REJECT))
    assert ended.releases[-1].stage is ReleaseStage.ROLLED_BACK
    assert ended.state.trial is None
    assert (ended.records[-1].decision, ended.records[-1].actor) == (Decision.ROLLED_BACK, PERSON)


def test_a_person_ends_the_waiting_at_the_gate() -> None:
    ended = Desk().send(*OLD, *NEW[:4], candidate(), order(Order.REJECT))
    assert ended.releases[-1].stage is ReleaseStage.REJECTED
    assert ended.state.waiting is None
    assert ended.decisions == [Decision.REJECTED]
    assert ended.send(*NEW[4:]).decisions == [Decision.REJECTED]


def test_a_site_goes_back_to_the_version_before() -> None:
    back = tried().send(order(Order.ROLLBACK))
    release = back.releases[-1]
    assert (release.version, release.stage, release.number) == ("ward-0", ReleaseStage.STABLE, 3)
    assert (release.package, release.previous_version) == (FIRST.package, "ward-1")
    assert back.state.stable == release
    record = back.records[-1]
    assert (record.decision, record.version, record.actor) == (Decision.ROLLED_BACK, "ward-1", PERSON)
    assert record.evidence["serves_again"] == "ward-0"
    verify_chains(back.chain)
    assert "no version is known" in refused(back, order(Order.ROLLBACK, "ward-0", "order-2")).reason


def test_going_back_ends_what_was_trained_from_the_version_taken_out() -> None:
    back = tried()
    back.evaluator.right["ward-1"] = {"old"}
    back.send(candidate("ward-2", base="ward-1", attempt=2))
    assert back.state.trial is not None
    back.send(order(Order.ROLLBACK))
    stages = [(release.version, release.stage) for release in back.releases[-2:]]
    assert stages == [("ward-2", ReleaseStage.ROLLED_BACK), ("ward-0", ReleaseStage.STABLE)]
    assert back.state.trial is None
    verify_chains(back.chain)


def test_only_what_serves_every_device_is_taken_back() -> None:
    assert "ward-0 does" in refused(desk().send(candidate()), order(Order.ROLLBACK)).reason
    assert "no version is known" in refused(desk(), order(Order.ROLLBACK, "ward-0")).reason


def test_an_order_sent_twice_counts_once() -> None:
    back = tried().send(order(Order.ROLLBACK))
    made = len(back.outputs)
    assert len(back.send(order(Order.ROLLBACK)).outputs) == made
