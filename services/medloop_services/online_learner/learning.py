"""Learning: one update a mini-batch of labelled images while an adaptation is asked for, then a candidate.

```
            request                 enough labels                  released
   idle ───────────────▶ training ────────────────▶ judged ───────────────────▶ idle
                          │ ▲                        ▲ │ turned down: more labels, next attempt
                          │ └────────────────────────┼─┘ (after the last attempt: idle)
                          └───▶ waiting ─────────────┘
             in a federation:   round closed: what was merged, if it counts this site
             an update          left out, or as many labels later as an attempt takes: the site's own model
```

A site's own model is its candidate at once where the federation can't merge it: the last round it was told of
went on from other weights than its base's, or it has learned a class that not all sites know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from statistics import fmean
from typing import Protocol

from medloop_model.training.reason import Reason, told
from medloop_schemas import (
    AdaptationRequested,
    Artifact,
    CandidateTrained,
    Event,
    ExampleLabelled,
    InvalidEvent,
    ReleaseChanged,
    ReleaseStage,
    RoundClosed,
    TransientError,
    UpdateSubmitted,
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
    """A candidate's version and file, and why it was trained as it was."""

    version: str
    package: Artifact
    why: tuple[Reason, ...] = ()


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

    def submit(self, adaptation: Adaptation, examples: Material, now: datetime) -> UpdateSubmitted | None:
        """Store and sign that model's update, or return None where the site is in no federation.

        Raises InvalidEvent if the federation can't merge it, TransientError if it can't be stored now.
        """

    def take_up(self, adaptation: Adaptation, examples: Material, closed: RoundClosed) -> Trained:
        """Store what that model and the round's come to.

        Raises InvalidEvent if what was merged is broken, TransientError if it can't be fetched now.
        """


def _of_the_package(_request: AdaptationRequested, _base: ReleaseChanged) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Learning:
    """The core: state and event to state, updates and candidates.

    Attributes:
        settings: how much is remembered and when a candidate is ready.
        trainer: the effect; its result depends on the adaptation's state and examples alone.
        release_of: finds a site's release of a version.
        fisher_of: chooses the Fisher information that a request's adaptation of a base starts with.
    """

    settings: LearnerSettings
    trainer: Trainer
    release_of: Callable[[str, str], ReleaseChanged | None]
    fisher_of: Callable[[AdaptationRequested, ReleaseChanged], Artifact | None] = _of_the_package

    def step(self, state: LearningState, event: Event) -> Step:
        """Return the site's state after one event, and the update or candidate it completes, if any.

        Raises:
            InvalidEvent: the event is of another kind, an example's pixels can't be read, or the model that a
                request wants adapted or that a round has merged is broken.
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
            case RoundClosed():
                return self._closed(state, event)
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
        fisher = self.fisher_of(request, base)
        adaptation = Adaptation(request=request, base=base, fisher=fisher, opened_at=now, fixed_below=now)
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
        """Do all the updates that the examples allow, then offer the model if it is time for that."""
        adaptation = state.adaptation
        if adaptation is None or adaptation.phase is Phase.JUDGED:
            return state, ()
        if adaptation.phase is Phase.WAITING:
            return self._waited(state, adaptation, now)
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
        return self._offered(state, adaptation, examples, now)

    def _offered(
        self, state: LearningState, adaptation: Adaptation, examples: Material, now: datetime
    ) -> Step:
        """Submit what was trained to the site's federation; without one it is a candidate at once."""
        try:
            update = self.trainer.submit(adaptation, examples, now)
        except InvalidEvent as error:
            return self._alone(state, adaptation, now, f"not submitted: {error.reason}")
        if update is None:
            return self._alone(state, adaptation, now)
        last = self._last_round(state)
        if last is not None and last.merged_sha256 != update.base_sha256:
            why = f"not submitted: round {last.number} of {last.federation} went on from other weights"
            return self._alone(state, adaptation, now, why)
        patience = self.settings.labels_per_attempt(adaptation.request.strategy)
        waiting = {
            "phase": Phase.WAITING,
            "update": update,
            "waits_until": state.next_number + patience,
        }
        return state.model_copy(update={"adaptation": adaptation.model_copy(update=waiting)}), (update,)

    def _waited(self, state: LearningState, adaptation: Adaptation, now: datetime) -> Step:
        """Go on with the site's own model when the round has taken too long.

        The log's numbers count, which grow with every label of the site: a full log takes in none.
        """
        if state.next_number < adaptation.waits_until:
            return state, ()
        patience = self.settings.labels_per_attempt(adaptation.request.strategy)
        why = f"not merged: {patience} labels later no round had been closed"
        return self._alone(state, adaptation, now, why)

    def _closed(self, state: LearningState, closed: RoundClosed) -> Step:
        """Take up what was merged, or go on with the site's own model where its update isn't in it."""
        last = self._last_round(state)
        repeated = last is not None and closed.number <= last.number
        if closed.federation != self.settings.federation or repeated:
            return state, ()
        state = state.model_copy(update={"round": closed})
        adaptation = state.adaptation
        if adaptation is None or adaptation.update is None or adaptation.phase is not Phase.WAITING:
            return state, ()
        now = max(closed.time, adaptation.update.time)
        place = f"round {closed.number} of {closed.federation}"
        if not _counted(adaptation.update, closed):
            why = closed.refused.get(closed.site_id, "it had gone on from other weights")
            return self._alone(state, adaptation, now, f"not merged in {place}: {why}")
        trained = self.trainer.take_up(adaptation, material(state, adaptation), closed)
        others = ", ".join(sorted(closed.samples.keys() - {closed.site_id}))
        return _judged(state, adaptation, trained, now, f"merged in {place} with {others}")

    def _last_round(self, state: LearningState) -> RoundClosed | None:
        """Return the last round the site was told of, unless it belonged to another federation then."""
        last = state.round
        return last if last is not None and last.federation == self.settings.federation else None

    def _alone(
        self, state: LearningState, adaptation: Adaptation, now: datetime, federated: str = ""
    ) -> Step:
        """Make a candidate of the site's own model."""
        trained = self.trainer.finish(adaptation, material(state, adaptation))
        return _judged(state, adaptation, trained, now, federated)


def _judged(
    state: LearningState, adaptation: Adaptation, trained: Trained, now: datetime, federated: str
) -> Step:
    """Return the state in which a candidate is with the publisher, and the candidate."""
    adaptation = adaptation.model_copy(update={"phase": Phase.JUDGED, "candidate": trained.version})
    candidate = _candidate(adaptation, trained, now, federated)
    return state.model_copy(update={"adaptation": adaptation}), (candidate,)


def _counted(update: UpdateSubmitted, closed: RoundClosed) -> bool:
    """Whether a round merged an update of this site's base: this one, or one of an attempt before it."""
    return closed.base_sha256 == update.base_sha256 and update.site_id in closed.samples


def _superseded(base: ReleaseChanged, stable: ReleaseChanged | None) -> bool:
    return stable is not None and base.number < stable.number


def _candidate(adaptation: Adaptation, trained: Trained, now: datetime, federated: str) -> CandidateTrained:
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
        labels_used=adaptation.labels_used,
        labels_corrected=adaptation.corrected,
        labels_quarantined=adaptation.quarantined,
        updates=adaptation.steps,
        changed_codes=adaptation.changed_codes,
        loss_first=fmean(adaptation.losses[:LOSSES_AVERAGED]),
        loss_last=fmean(adaptation.losses[-LOSSES_AVERAGED:]),
        **told(trained.why),
        federated=federated,
    )
