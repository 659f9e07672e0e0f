"""What a decision leaves behind: a release, an audit record, and the state that knows of both."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from medloop_schemas import CandidateTrained, Event, InvalidEvent, ReleaseChanged, ReleaseStage

from medloop_services.publisher.audit import ACTOR, Decision, Evidence
from medloop_services.publisher.state import PublisherState

JUDGED_KEPT = 64

Step = tuple[PublisherState, Sequence[Event]]


def stable_of(state: PublisherState) -> ReleaseChanged:
    """Return the release that serves every device; raises InvalidEvent where a site has none."""
    if state.stable is None:
        reason = "no model is released at this site: add it to MEDLOOP_PUBLISHER_SITES"
        raise InvalidEvent("site", "site_id", reason)
    return state.stable


def under_way(state: PublisherState) -> list[CandidateTrained]:
    """Return the candidates that are waiting or on trial."""
    on_trial = None if state.trial is None else state.trial.candidate
    return [candidate for candidate in (state.waiting, on_trial) if candidate is not None]


def settle(state: PublisherState, candidate: CandidateTrained) -> PublisherState:
    """Return the state in which a candidate is decided on."""
    waiting = None if state.waiting == candidate else state.waiting
    trial = None if state.trial is not None and state.trial.candidate == candidate else state.trial
    judged = (*state.judged, candidate.event_id)[-JUDGED_KEPT:]
    return state.model_copy(update={"waiting": waiting, "trial": trial, "judged": judged})


def record(
    state: PublisherState,
    candidate: CandidateTrained,
    now: datetime,
    *,
    decision: Decision,
    reason: str,
    evidence: Evidence,
    actor: str = ACTOR,
) -> Step:
    """Put a decision on a candidate on record."""
    about = {
        "candidate_sha256": candidate.package.sha256,
        "diagnosis": candidate.diagnosis.value,
        "why_trained_so": " ".join(candidate.why),
        "why_codes": " ".join(candidate.why_codes),
        "labels_corrected": candidate.labels_corrected,
        "labels_quarantined": candidate.labels_quarantined,
    }
    chain, record = state.audit.recorded(
        candidate.site_id,
        now,
        decision=decision,
        version=candidate.version,
        reason=reason,
        evidence={**about, **evidence},
        actor=actor,
    )
    return state.model_copy(update={"audit": chain}), (record,)


def release(
    state: PublisherState,
    candidate: CandidateTrained,
    now: datetime,
    *,
    stage: ReleaseStage,
    reason: str,
    devices: tuple[str, ...] = (),
) -> Step:
    """Change how far a candidate has come; the release it takes the place of is remembered."""
    base = stable_of(state)
    change = ReleaseChanged(
        time=now,
        site_id=candidate.site_id,
        number=state.next_release,
        version=candidate.version,
        stage=stage,
        package=candidate.package,
        teacher=base.teacher,
        classes=candidate.classes,
        devices=devices,
        previous_version=base.version,
        request_id=candidate.request_id,
        reason=reason,
    )
    update: dict[str, object] = {"next_release": change.number + 1}
    if stage is ReleaseStage.STABLE:
        update |= {"stable": change, "previous": base, "onset": {}}
    return state.model_copy(update=update), (change,)
