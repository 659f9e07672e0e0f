"""Rounds: sites' updates are gathered, then merged into the next round's base.

```
            first update              quorum, or time and minimum
   (idle) ───────────────▶ open ─────────────────────────────────▶ merged, next number
                            │ an update of another base: not merged, and its site is sent the last merge
                            └ a forged, broken or unknown site's update: dead letter
```

Time is that of the updates: a round is closed late by the first update after its end, which still counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from medloop_model.federation.agreement import ROUNDS
from medloop_model.federation.errors import StaleBase, UnknownSite, WrongSignature
from medloop_model.federation.signature import verify
from medloop_model.federation.update import Update
from medloop_schemas import Event, InvalidEvent, RoundClosed, RoundOpened, UpdateSubmitted

from medloop_services.federation.settings import FederationSettings
from medloop_services.federation.state import FederationState, SharedModel

ANSWERED_KEPT = 1024
OPPOSED = "its update moves against most others' of the round; look at the site's labels and its training"

Step = tuple[FederationState, Sequence[Event]]


@dataclass(frozen=True, slots=True)
class MergedRound:
    """What sites have learned together.

    Attributes:
        model: the next round's base.
        clipped: sites whose update was too long.
        agreement: each site's median cosine with the others.
        opposed: sites whose update was left out, since they move against the others.
    """

    model: SharedModel
    clipped: tuple[str, ...] = ()
    agreement: Mapping[str, float] = field(default_factory=dict)
    opposed: tuple[str, ...] = ()


class Merger(Protocol):
    """Reads and merges updates; the same files always give the same file."""

    def read(self, submitted: UpdateSubmitted, base: SharedModel) -> Update:
        """Raise InvalidEvent if the payload is broken or of another model, TransientError if not now."""

    def merge(
        self, base: SharedModel, updates: Mapping[str, Update], earlier: Mapping[str, Sequence[float]]
    ) -> MergedRound:
        """Store what the sites' updates come to."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """The core: state and update to state, rounds and merges.

    Attributes:
        settings: who belongs to it and when a round is closed.
        merger: the effect; its result depends on its arguments alone.
    """

    settings: FederationSettings
    merger: Merger

    def step(self, state: FederationState, event: Event) -> Step:
        """Return the federation's state after one update, and what it opened or closed.

        Raises:
            InvalidEvent: an update of an unknown site, signed by somebody else, or broken.
            TransientError: a store is away.
        """
        if not isinstance(event, UpdateSubmitted):
            raise InvalidEvent("type", "", f"the federation can't use {type(event).__name__}")
        if event.event_id in state.answered:
            return state, ()
        self._authenticate(event)
        if event.base_sha256 == state.base.shared_sha256:
            self.merger.read(event, state.base)
            state, outputs = self._gathered(state, event)
        else:
            state, outputs = self._stale(state, event)
        answered = (*state.answered, event.event_id)[-ANSWERED_KEPT:]
        state, closed = self._closed_if_due(state.model_copy(update={"answered": answered}), event.time)
        return state, (*outputs, *closed)

    def _authenticate(self, update: UpdateSubmitted) -> None:
        key = self.settings.sites.get(update.site_id)
        if key is None:
            unknown = UnknownSite(update.site_id)
            raise InvalidEvent(unknown.code, "site_id", str(unknown))
        try:
            verify(update.signed_content, update.signature, update.site_id, key)
        except WrongSignature as error:
            raise InvalidEvent(error.code, "signature", str(error)) from error

    def _gathered(self, state: FederationState, update: UpdateSubmitted) -> Step:
        """Take an update in, instead of the site's earlier one; the first opens the round."""
        refused = {site: why for site, why in state.refused.items() if site != update.site_id}
        updates = {**state.updates, update.site_id: update}
        opened = state.opened or RoundOpened(
            time=update.time,
            federation=update.federation,
            number=state.number,
            base_sha256=state.base.shared_sha256,
            quorum=self.settings.quorum,
            closes_at=self._end(update),
        )
        state = state.model_copy(
            update={"updates": updates, "refused": refused, "opened": opened},
        )
        return state, (opened,) if len(updates) == 1 else ()

    def _end(self, first: UpdateSubmitted) -> datetime:
        try:
            return first.time + timedelta(hours=self.settings.hours)
        except OverflowError as error:
            wrong = f"a round that begins at {first.time} has no end; set the clock of {first.site_id}"
            raise InvalidEvent("time", "time", wrong) from error

    def _stale(self, state: FederationState, update: UpdateSubmitted) -> Step:
        """Leave an update out, and send its site the last merge, so that it can catch up."""
        why = str(StaleBase(update.base_sha256, state.base.shared_sha256))
        refused = state.refused if update.site_id in state.updates else {**state.refused, update.site_id: why}
        state = state.model_copy(update={"refused": refused})
        last = state.closed
        return state, () if last is None else (last.model_copy(update={"site_id": update.site_id}),)

    def _closed_if_due(self, state: FederationState, now: datetime) -> Step:
        reason = self._due(state, now)
        if reason is None or state.opened is None:
            return state, ()
        readable, broken = self._read_again(state)
        if len(readable) < self.settings.minimum:
            return state.model_copy(update={"updates": _only(state, readable), "refused": broken}), ()
        merged = self.merger.merge(state.base, readable, state.agreement)
        first, *_ = sites = sorted(readable)
        closed = RoundClosed(
            time=max(now, *(update.time for update in state.updates.values())),
            federation=state.opened.federation,
            number=state.number,
            site_id=first,
            base_sha256=state.base.shared_sha256,
            merged=merged.model.package,
            merged_sha256=merged.model.shared_sha256,
            aggregator=self.settings.aggregator,
            samples={site: readable[site].samples for site in sites if site not in merged.opposed},
            clipped=merged.clipped,
            agreement=dict(merged.agreement),
            refused=broken | dict.fromkeys(merged.opposed, OPPOSED),
            reason=reason,
        )
        state = FederationState(
            base=merged.model,
            number=state.number + 1,
            closed=closed,
            answered=state.answered,
            agreement=_lengthened(state.agreement, merged.agreement),
        )
        return state, [closed.model_copy(update={"site_id": site}) for site in sites]

    def _due(self, state: FederationState, now: datetime) -> str | None:
        """Why the round is to be closed, or None."""
        sites = len(state.updates)
        if sites >= self.settings.quorum:
            return f"{sites} sites have sent an update, which is the quorum"
        if state.opened is not None and now >= state.opened.closes_at and sites >= self.settings.minimum:
            return f"{sites} of {self.settings.quorum} sites had sent an update by {state.opened.closes_at}"
        return None

    def _read_again(self, state: FederationState) -> tuple[dict[str, Update], dict[str, str]]:
        """The updates by site, and why a site's isn't there: a file may have been damaged since it came."""
        readable, refused = {}, dict(state.refused)
        for site, submitted in sorted(state.updates.items()):
            try:
                readable[site] = self.merger.read(submitted, state.base)
            except InvalidEvent as error:
                refused[site] = str(error)
        return readable, refused


def _only(state: FederationState, readable: Mapping[str, Update]) -> dict[str, UpdateSubmitted]:
    return {site: state.updates[site] for site in readable}


def _lengthened(
    agreed: Mapping[str, tuple[float, ...]], now: Mapping[str, float]
) -> dict[str, tuple[float, ...]]:
    """Each site's agreement in its last rounds, this one included."""
    return {**agreed, **{site: (*agreed.get(site, ()), cosine)[-ROUNDS:] for site, cosine in now.items()}}
