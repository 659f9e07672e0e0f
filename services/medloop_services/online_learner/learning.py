"""Learning: one update a mini-batch of labelled images while an adaptation is asked for, then a candidate.

```
            request                 enough labels                  released
   idle ───────────────▶ training ────────────────▶ judged ───────────────────▶ idle
                            ▲                          │ turned down: more labels, next attempt
                            └──────────────────────────┘ (after the last attempt: idle)
```
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from statistics import fmean
from typing import Protocol

from medloop_schemas import (
    AdaptationRequested,
    Artifact,
    CandidateTrained,
    Event,
    ExampleLabelled,
    InvalidEvent,
    ReleaseChanged,
    ReleaseStage,
    TransientError,
)

from medloop_services.online_learner.examples import Material, classes_of, material, taken_in, trimmed
from medloop_services.online_learner.settings import LearnerSettings
from medloop_services.online_learner.state import Adaptation, LearningState, Phase

ANSWERED_KEPT = 32
ONSETS_KEPT = 32
LOSSES_AVERAGED = 4

Step = tuple[LearningState, Sequence[Event]]


@dataclass(frozen=True, slots=True)
class Update:
    """What one mini-batch did.

    Attributes:
        loss: mean over its optimiser steps; not a number if none was taken, or if they were undone.
        steps: optimiser steps of the adaptation so far.
        changed_codes: share of ternary weights that differ from the base's.
        corrected: labels of the adaptation so far that took the place of another one.
        quarantined: new examples of the adaptation so far whose training was undone.
    """

    loss: float
    steps: int
    changed_codes: float
    corrected: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A candidate's version and file."""

    version: str
    package: Artifact


class Trainer(Protocol):
    """Trains: what it returns depends on its arguments alone, whatever it was asked before."""

    def check(self, example: ExampleLabelled) -> None:
        """Raise InvalidEvent if the example's pixels can't be read, TransientError if not now."""

    def open(self, adaptation: Adaptation, examples: Material) -> None:
        """Raise InvalidEvent if the base model is broken, TransientError if it can't be fetched now."""

    def update(self, adaptation: Adaptation, examples: Material) -> Update:
        """Train on the mini-batch that comes after `adaptation.trained` new examples."""

    def finish(self, adaptation: Adaptation, examples: Material) -> Trained:
        """Store the model as it is after `adaptation.trained` new examples."""


@dataclass(frozen=True, slots=True)
class Learning:
    """The core: state and event to state and candidates.

    Attributes:
        settings: how much is remembered and when a candidate is ready.
        trainer: the effect; its result depends on the adaptation's state and examples alone.
        release_of: finds a site's release of a version.
    """

    settings: LearnerSettings
    trainer: Trainer
    release_of: Callable[[str, str], ReleaseChanged | None]

    def step(self, state: LearningState, event: Event) -> Step:
        """Return the site's state after one event, and the candidate it completes, if any.

        Raises:
            InvalidEvent: the event is of another kind, an example's pixels can't be read, or the model that a
                request wants adapted is broken.
            TransientError: a store is away, or a release is not known yet.
        """
        match event:
            case ExampleLabelled():
                self.trainer.check(event)
                return self._advanced(taken_in(state, event, self.settings), event.time)
            case AdaptationRequested():
                return self._advanced(self._opened(state, event), event.time)
            case ReleaseChanged():
                return self._advanced(self._decided(state, event), event.time)
        raise InvalidEvent("type", "", f"learning can't use {type(event).__name__}")

    def _opened(self, state: LearningState, request: AdaptationRequested) -> LearningState:
        if state.adaptation is not None or request.event_id in state.answered:
            return state
        base = self.release_of(request.site_id, request.base_version)
        if base is None:
            raise TransientError(f"release {request.base_version} is not known yet; waiting for it")
        if base.stage is not ReleaseStage.STABLE or _superseded(base, state.stable):
            return state
        now = state.next_number
        adaptation = Adaptation(request=request, base=base, opened_at=now, fixed_below=now)
        self.trainer.open(adaptation, material(state, adaptation))
        return state.model_copy(update={"adaptation": adaptation})

    def _decided(self, state: LearningState, change: ReleaseChanged) -> LearningState:
        if change.number <= state.release_number:
            return state
        state = state.model_copy(update={"release_number": change.number})
        if change.stage is ReleaseStage.STABLE:
            replaced = state.adaptation is not None and change.version != state.adaptation.base.version
            state = state.model_copy(update={"stable": change})
            return self._settled(state) if replaced else state
        turned_down = change.stage in {ReleaseStage.REJECTED, ReleaseStage.ROLLED_BACK}
        adaptation = state.adaptation
        if not turned_down or adaptation is None or change.version != adaptation.candidate:
            return state
        return self._again(state, adaptation)

    def _again(self, state: LearningState, adaptation: Adaptation) -> LearningState:
        """Return the state that waits for the labels of one more attempt, or has given up."""
        if adaptation.attempt >= self.settings.attempts:
            return self._settled(state)
        again = {"phase": Phase.TRAINING, "attempt": adaptation.attempt + 1}
        return state.model_copy(update={"adaptation": adaptation.model_copy(update=again)})

    def _settled(self, state: LearningState) -> LearningState:
        if state.adaptation is None:
            return state
        request = state.adaptation.request
        settled = state.model_copy(
            update={
                "adaptation": None,
                "answered": (*state.answered, request.event_id)[-ANSWERED_KEPT:],
                "onsets": (*state.onsets, dict(request.onset))[-ONSETS_KEPT:],
            }
        )
        return trimmed(settled, self.settings)

    def _advanced(self, state: LearningState, now: datetime) -> Step:
        """Do all the updates that the examples allow, then export a candidate if it is time for one."""
        adaptation = state.adaptation
        if adaptation is None or adaptation.phase is not Phase.TRAINING:
            return state, ()
        examples = material(state, adaptation)
        goal = adaptation.attempt * self.settings.labels_per_attempt(adaptation.request.strategy)
        while adaptation.trained < goal:
            through = adaptation.trained + self.settings.batch_size
            if len(examples.new) < through:
                return state.model_copy(update={"adaptation": adaptation}), ()
            update = self.trainer.update(adaptation, examples)
            adaptation = adaptation.model_copy(
                update={
                    "trained": through,
                    "losses": (*adaptation.losses, *filter(isfinite, [update.loss])),
                    "steps": update.steps,
                    "changed_codes": update.changed_codes,
                    "corrected": update.corrected,
                    "quarantined": update.quarantined,
                    "fixed_below": max(adaptation.fixed_below, examples.new[through - 1].number + 1),
                }
            )
        if not adaptation.losses:  # no label could be learned from: more may help
            return self._advanced(self._again(state, adaptation), now)
        trained = self.trainer.finish(adaptation, examples)
        adaptation = adaptation.model_copy(update={"phase": Phase.JUDGED, "candidate": trained.version})
        return state.model_copy(update={"adaptation": adaptation}), (_candidate(adaptation, trained, now),)


def _superseded(base: ReleaseChanged, stable: ReleaseChanged | None) -> bool:
    return stable is not None and base.number < stable.number


def _candidate(adaptation: Adaptation, trained: Trained, now: datetime) -> CandidateTrained:
    request, base = adaptation.request, adaptation.base
    return CandidateTrained(
        time=now,
        site_id=request.site_id,
        request_id=request.event_id,
        attempt=adaptation.attempt,
        version=trained.version,
        base_version=base.version,
        package=trained.package,
        diagnosis=request.diagnosis,
        strategy=request.strategy,
        onset=request.onset,
        classes=classes_of(request, base),
        labels_used=adaptation.trained - adaptation.quarantined,
        labels_corrected=adaptation.corrected,
        labels_quarantined=adaptation.quarantined,
        updates=adaptation.steps,
        changed_codes=adaptation.changed_codes,
        loss_first=fmean(adaptation.losses[:LOSSES_AVERAGED]),
        loss_last=fmean(adaptation.losses[-LOSSES_AVERAGED:]),
    )
