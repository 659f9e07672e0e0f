"""A person's orders: approve or end a candidate, or go back to the version before.

An order names the version it is about, so that one that comes late does nothing to another. The person is the
audit record's actor.
"""

from __future__ import annotations

from medloop_schemas import CandidateTrained, Event, InvalidEvent, Order, ReleaseOrdered, ReleaseStage

from medloop_services.publisher.audit import Decision, Evidence
from medloop_services.publisher.decisions import Step, record, release, settle, stable_of, under_way
from medloop_services.publisher.state import PublisherState

ORDERS_KEPT = 64


def followed(state: PublisherState, order: ReleaseOrdered) -> Step:
    """Return the state after an order, and what it decided; a repeat changes nothing.

    Raises:
        InvalidEvent: the order doesn't fit where its version stands; the reason says where that is.
    """
    if order.event_id in state.orders:
        return state, ()
    follow = {Order.APPROVE: _approved, Order.REJECT: _rejected, Order.ROLLBACK: _rolled_back}[order.order]
    state, outputs = follow(state, order)
    orders = (*state.orders, order.event_id)[-ORDERS_KEPT:]
    return state.model_copy(update={"orders": orders}), outputs


def _approved(state: PublisherState, order: ReleaseOrdered) -> Step:
    trial = state.trial
    if trial is None or trial.candidate.version != order.version:
        raise InvalidEvent("order", "version", f"{order.version} is not on trial")
    if not trial.passed:
        tried = f"{len(trial.outcomes)} labelled images so far"
        raise InvalidEvent("order", "order", f"{order.version} is still being tried: {tried}")
    return _decided(state, trial.candidate, order, Decision.PROMOTED, ReleaseStage.STABLE)


def _rejected(state: PublisherState, order: ReleaseOrdered) -> Step:
    for candidate in under_way(state):
        if candidate.version == order.version:
            return _ended(state, candidate, order)
    raise InvalidEvent("order", "version", f"{order.version} is neither being judged nor on trial")


def _rolled_back(state: PublisherState, order: ReleaseOrdered) -> Step:
    current, earlier = stable_of(state), state.previous
    if current.version != order.version:
        reason = f"{order.version} does not serve every device; {current.version} does"
        raise InvalidEvent("order", "version", reason)
    if earlier is None:
        raise InvalidEvent("order", "order", f"no version is known to go back to from {order.version}")
    outputs: list[Event] = []
    for candidate in under_way(state):  # trained from what is now taken out of service
        state, ended = _ended(state, candidate, order)
        outputs += ended
    back = earlier.model_copy(
        update={
            "time": order.time,
            "number": state.next_release,
            "previous_version": current.version,
            "request_id": None,
            "reason": order.reason,
        }
    )
    chain, recorded = state.audit.recorded(
        order.site_id,
        order.time,
        decision=Decision.ROLLED_BACK,
        version=current.version,
        reason=order.reason,
        evidence={**_evidence(order), "serves_again": back.version},
        actor=order.person,
    )
    update = {"stable": back, "previous": None, "next_release": back.number + 1, "audit": chain}
    return state.model_copy(update=update), (*outputs, back, recorded)


def _ended(state: PublisherState, candidate: CandidateTrained, order: ReleaseOrdered) -> Step:
    tried = state.trial is not None and state.trial.candidate == candidate
    if tried:
        return _decided(state, candidate, order, Decision.ROLLED_BACK, ReleaseStage.ROLLED_BACK)
    return _decided(state, candidate, order, Decision.REJECTED, ReleaseStage.REJECTED)


def _decided(
    state: PublisherState,
    candidate: CandidateTrained,
    order: ReleaseOrdered,
    decision: Decision,
    stage: ReleaseStage,
) -> Step:
    state, records = record(
        state,
        candidate,
        order.time,
        decision=decision,
        reason=order.reason,
        evidence=_evidence(order),
        actor=order.person,
    )
    state, releases = release(state, candidate, order.time, stage=stage, reason=order.reason)
    return settle(state, candidate), (*releases, *records)


def _evidence(order: ReleaseOrdered) -> Evidence:
    return {"order_id": order.event_id}
