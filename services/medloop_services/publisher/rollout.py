"""The rollout: a candidate's way to every device, or out.

```
   candidate ──▶ waiting ──▶ gate ──▶ canary ──▶ stable
                 (too few     │         │    (a person may have to approve)
                 held back)   ▼         ▼
                           rejected  rolled back
```

A person's orders (`orders.py`) end or shorten this way, and lead back to the version before.
"""

from __future__ import annotations

import hashlib
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
    ReleaseOrdered,
    ReleaseStage,
)

from medloop_services.publisher.audit import Decision, Evidence
from medloop_services.publisher.decisions import Step, record, release, settle, stable_of, under_way
from medloop_services.publisher.examples import taken_in, was_taken
from medloop_services.publisher.gate import Evaluator, Verdict, held_back_for, judge
from medloop_services.publisher.orders import followed
from medloop_services.publisher.settings import PublisherSettings
from medloop_services.publisher.state import Outcome, PublisherState, Trial


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
            case ReleaseOrdered():
                return followed(state, event)
        raise InvalidEvent("type", "", f"the publisher can't use {type(event).__name__}")

    def _requested(self, state: PublisherState, request: AdaptationRequested) -> PublisherState:
        """Know the old domain from the new from now on, so that enough of both is remembered."""
        current = state.stable is not None and request.base_version == state.stable.version
        return state.model_copy(update={"onset": request.onset}) if current else state

    def _received(self, state: PublisherState, candidate: CandidateTrained) -> Step:
        known = {*state.judged, *(other.event_id for other in under_way(state))}
        if candidate.event_id in known:
            return state, ()
        stable = stable_of(state)
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
        base = stable_of(state)
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
        passed = record(
            state,
            candidate,
            now,
            decision=Decision.GATE_PASSED,
            reason=verdict.reason,
            evidence=verdict.evidence,
        )
        reason = f"tried on {len(devices)} of {len(candidate.onset)} affected devices: {', '.join(devices)}"
        evidence = {"devices": len(devices), "examples_needed": self.settings.canary_examples}
        started = record(
            passed[0],
            candidate,
            now,
            decision=Decision.CANARY_STARTED,
            reason=reason,
            evidence=evidence,
        )
        released = release(
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
        (base_says,) = self.evaluator.answer(stable_of(state).package, [example.frame]).names
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
            f"where {stable_of(state).version} is right on {base_right}"
        )
        if self.settings.approval and not harmful:
            return _awaiting_approval(state, trial, now, reason, evidence)
        decision = Decision.ROLLED_BACK if harmful else Decision.PROMOTED
        stage = ReleaseStage.ROLLED_BACK if harmful else ReleaseStage.STABLE
        recorded = record(state, trial.candidate, now, decision=decision, reason=reason, evidence=evidence)
        released = release(recorded[0], trial.candidate, now, stage=stage, reason=reason)
        return settle(released[0], trial.candidate), (*released[1], *recorded[1])


def canary_devices(candidate: CandidateTrained, fraction: float) -> tuple[str, ...]:
    """Return the devices that try a candidate: a share of the affected ones, other ones for each version."""

    def lot(device_id: str) -> str:
        return hashlib.sha256(f"{candidate.version}\x1f{device_id}".encode()).hexdigest()

    return tuple(sorted(candidate.onset, key=lot)[: ceil(fraction * len(candidate.onset))])


def _awaiting_approval(
    state: PublisherState, trial: Trial, now: datetime, reason: str, evidence: Evidence
) -> Step:
    """Say once that a person has to decide; the canary serves on, and is still rolled back if it harms."""
    if trial.passed:
        return state, ()
    state = state.model_copy(update={"trial": trial.model_copy(update={"passed": True})})
    return record(
        state, trial.candidate, now, decision=Decision.CANARY_PASSED, reason=reason, evidence=evidence
    )


def _obstacle(state: PublisherState, stable: ReleaseChanged, candidate: CandidateTrained) -> str | None:
    """Return why a candidate can't even be judged, or None."""
    for other in under_way(state):
        return f"{other.version} is being judged; one candidate at a time"
    if candidate.base_version != stable.version:
        return f"it was trained from {candidate.base_version}, but {stable.version} serves now"
    if candidate.classes[: len(stable.classes)] != stable.classes:
        return f"its classes {candidate.classes} do not continue {stable.classes}"
    return None


def _rejected(state: PublisherState, candidate: CandidateTrained, verdict: Verdict, now: datetime) -> Step:
    recorded = record(
        state,
        candidate,
        now,
        decision=Decision.GATE_FAILED,
        reason=verdict.reason,
        evidence=verdict.evidence,
    )
    released = release(recorded[0], candidate, now, stage=ReleaseStage.REJECTED, reason=verdict.reason)
    return settle(released[0], candidate), (*released[1], *recorded[1])
