"""The rollout: a candidate's way to every device, or out.

```
   candidate ──▶ waiting ──▶ gate ──▶ canary ──▶ stable
                 (too few     │         │
                 held back)   ▼         ▼
                           rejected  rolled back
```
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from medloop_schemas import (
    AdaptationRequested,
    CandidateTrained,
    Event,
    ExampleLabelled,
    InvalidEvent,
    ReleaseChanged,
    ReleaseStage,
)

from medloop_services.publisher.audit import Decision, Evidence
from medloop_services.publisher.examples import taken_in, was_taken
from medloop_services.publisher.gate import Evaluator, Verdict, held_back_for, judge
from medloop_services.publisher.settings import PublisherSettings
from medloop_services.publisher.state import Outcome, PublisherState, Trial

JUDGED_KEPT = 64

Step = tuple[PublisherState, Sequence[Event]]


@dataclass(frozen=True, slots=True)
class Rollout:
    """The core: state and event to state, releases and audit records.

    Attributes:
        settings: what a candidate has to show.
        evaluator: runs packages on images; the same package and images always give the same answer.
    """

    settings: PublisherSettings
    evaluator: Evaluator

    def step(self, state: PublisherState, event: Event) -> Step:
        """Return the site's state after one event, and what was decided.

        Raises:
            InvalidEvent: the event is of another kind, of a site without a model, or can't be read.
            TransientError: a store is away.
        """
        match event:
            case AdaptationRequested():
                return self._requested(state, event), ()
            case CandidateTrained():
                return self._received(state, event)
            case ExampleLabelled():
                return self._taken(state, event)
        raise InvalidEvent("type", "", f"the publisher can't use {type(event).__name__}")

    def _requested(self, state: PublisherState, request: AdaptationRequested) -> PublisherState:
        """Know the old domain from the new from now on, so that enough of both is remembered."""
        current = state.stable is not None and request.base_version == state.stable.version
        return state.model_copy(update={"onset": request.onset}) if current else state

    def _received(self, state: PublisherState, candidate: CandidateTrained) -> Step:
        known = {*state.judged, *(other.event_id for other in _under_way(state))}
        if candidate.event_id in known:
            return state, ()
        stable = _stable(state)
        if obstacle := _obstacle(state, stable, candidate):
            return _rejected(state, candidate, Verdict(passed=False, reason=obstacle), candidate.time)
        return self._judged(state.model_copy(update={"waiting": candidate}), candidate.time)

    def _taken(self, state: PublisherState, example: ExampleLabelled) -> Step:
        if was_taken(state, example):
            return state, ()
        state = self._observed(state, example)
        state = taken_in(state, example, self.settings)
        if state.trial is not None:
            return self._tried(state, state.trial, example.time)
        return self._judged(state, example.time)

    def _judged(self, state: PublisherState, now: datetime) -> Step:
        """Judge the candidate at the gate as soon as there are enough images to judge by."""
        candidate = state.waiting
        if candidate is None:
            return state, ()
        base = _stable(state)
        in_order = [example for _, example in sorted(state.examples.items())]
        examples = held_back_for(candidate, base, in_order)
        if len(examples.new) < self.settings.min_new:
            return state, ()
        try:
            verdict = judge(candidate, base, examples, self.evaluator, self.settings)
        except InvalidEvent as error:
            verdict = Verdict(passed=False, reason=str(error), evidence={"code": error.code})
        if not verdict.passed:
            return _rejected(state, candidate, verdict, now)
        return self._canary_started(state, candidate, verdict, now)

    def _canary_started(
        self, state: PublisherState, candidate: CandidateTrained, verdict: Verdict, now: datetime
    ) -> Step:
        devices = canary_devices(candidate, self.settings.canary_fraction)
        state = state.model_copy(
            update={"waiting": None, "trial": Trial(candidate=candidate, devices=devices)}
        )
        passed = _record(
            state,
            candidate,
            now,
            decision=Decision.GATE_PASSED,
            reason=verdict.reason,
            evidence=verdict.evidence,
        )
        reason = f"tried on {len(devices)} of {len(candidate.onset)} affected devices: {', '.join(devices)}"
        evidence = {"devices": len(devices), "examples_needed": self.settings.canary_examples}
        started = _record(
            passed[0],
            candidate,
            now,
            decision=Decision.CANARY_STARTED,
            reason=reason,
            evidence=evidence,
        )
        released = _released(
            started[0], candidate, now, stage=ReleaseStage.CANARY, reason=reason, devices=devices
        )
        return released[0], (*passed[1], *started[1], *released[1])

    def _observed(self, state: PublisherState, example: ExampleLabelled) -> PublisherState:
        """Count an image that the canary served, unless the canary may have been trained on its study."""
        trial = state.trial
        if trial is None or example.model_version != trial.candidate.version:
            return state
        if example.study_id in state.studies and example.image_id not in trial.outcomes:
            return state
        (base_says,) = self.evaluator.predict(_stable(state).package, [example.frame])
        classes = trial.candidate.classes
        served = classes[example.predicted_class] if example.predicted_class < len(classes) else None
        outcome = Outcome(
            candidate_right=served == example.class_name, base_right=base_says == example.class_name
        )
        outcomes = trial.outcomes | {example.image_id: outcome}
        return state.model_copy(update={"trial": trial.model_copy(update={"outcomes": outcomes})})

    def _tried(self, state: PublisherState, trial: Trial, now: datetime) -> Step:
        """Promote or roll back once the canary has enough images, or can't make up for its losses."""
        needed, outcomes = self.settings.canary_examples, trial.outcomes.values()
        candidate_right = sum(outcome.candidate_right for outcome in outcomes)
        base_right = sum(outcome.base_right for outcome in outcomes)
        still_to_come = max(0, needed - len(outcomes))
        allowed = self.settings.canary_tolerance * max(needed, len(outcomes))
        harmful = candidate_right - base_right + still_to_come < -allowed
        if still_to_come and not harmful:
            return state, ()
        evidence = {
            "canary_examples": len(outcomes),
            "canary_candidate_right": candidate_right,
            "canary_base_right": base_right,
            "canary_tolerance": self.settings.canary_tolerance,
        }
        reason = (
            f"right on {candidate_right} of {len(outcomes)} canary images, "
            f"where {_stable(state).version} is right on {base_right}"
        )
        decision = Decision.ROLLED_BACK if harmful else Decision.PROMOTED
        stage = ReleaseStage.ROLLED_BACK if harmful else ReleaseStage.STABLE
        recorded = _record(state, trial.candidate, now, decision=decision, reason=reason, evidence=evidence)
        released = _released(recorded[0], trial.candidate, now, stage=stage, reason=reason)
        return _settled(released[0], trial.candidate), (*released[1], *recorded[1])


def canary_devices(candidate: CandidateTrained, fraction: float) -> tuple[str, ...]:
    """Return the devices that try a candidate: a share of the affected ones, other ones for each version."""

    def lot(device_id: str) -> str:
        return hashlib.sha256(f"{candidate.version}\x1f{device_id}".encode()).hexdigest()

    return tuple(sorted(candidate.onset, key=lot)[: ceil(fraction * len(candidate.onset))])


def _stable(state: PublisherState) -> ReleaseChanged:
    if state.stable is None:
        reason = "no model is released at this site: add it to MEDLOOP_PUBLISHER_SITES"
        raise InvalidEvent("site", "site_id", reason)
    return state.stable


def _under_way(state: PublisherState) -> list[CandidateTrained]:
    on_trial = None if state.trial is None else state.trial.candidate
    return [candidate for candidate in (state.waiting, on_trial) if candidate is not None]


def _obstacle(state: PublisherState, stable: ReleaseChanged, candidate: CandidateTrained) -> str | None:
    """Return why a candidate can't even be judged, or None."""
    for other in _under_way(state):
        return f"{other.version} is being judged; one candidate at a time"
    if candidate.base_version != stable.version:
        return f"it was trained from {candidate.base_version}, but {stable.version} serves now"
    if candidate.classes[: len(stable.classes)] != stable.classes:
        return f"its classes {candidate.classes} do not continue {stable.classes}"
    return None


def _rejected(state: PublisherState, candidate: CandidateTrained, verdict: Verdict, now: datetime) -> Step:
    recorded = _record(
        state,
        candidate,
        now,
        decision=Decision.GATE_FAILED,
        reason=verdict.reason,
        evidence=verdict.evidence,
    )
    released = _released(recorded[0], candidate, now, stage=ReleaseStage.REJECTED, reason=verdict.reason)
    return _settled(released[0], candidate), (*released[1], *recorded[1])


def _settled(state: PublisherState, candidate: CandidateTrained) -> PublisherState:
    waiting = None if state.waiting == candidate else state.waiting
    trial = None if state.trial is not None and state.trial.candidate == candidate else state.trial
    judged = (*state.judged, candidate.event_id)[-JUDGED_KEPT:]
    return state.model_copy(update={"waiting": waiting, "trial": trial, "judged": judged})


def _record(
    state: PublisherState,
    candidate: CandidateTrained,
    now: datetime,
    *,
    decision: Decision,
    reason: str,
    evidence: Evidence,
) -> Step:
    about = {"candidate_sha256": candidate.package.sha256, "diagnosis": candidate.diagnosis.value}
    chain, record = state.audit.recorded(
        candidate.site_id,
        now,
        decision=decision,
        version=candidate.version,
        reason=reason,
        evidence={**about, **evidence},
    )
    return state.model_copy(update={"audit": chain}), (record,)


def _released(
    state: PublisherState,
    candidate: CandidateTrained,
    now: datetime,
    *,
    stage: ReleaseStage,
    reason: str,
    devices: tuple[str, ...] = (),
) -> Step:
    base = _stable(state)
    release = ReleaseChanged(
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
    update: dict[str, object] = {"next_release": release.number + 1}
    if stage is ReleaseStage.STABLE:
        update |= {"stable": release, "onset": {}}
    return state.model_copy(update=update), (release,)
