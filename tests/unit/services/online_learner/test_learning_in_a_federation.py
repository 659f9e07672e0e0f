from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

import pytest
from learning_bench import (
    EPOCH,
    SETTINGS,
    Bench,
    ScribeTrainer,
    artifact,
    digest,
    example,
    new_examples,
    release,
    request,
)
from medloop_schemas import CandidateTrained, Event, InvalidEvent, ReleaseStage, RoundClosed
from medloop_services.online_learner.learning import Learning
from medloop_services.online_learner.state import LearningState, Phase

FEDERATED = SETTINGS.model_copy(update={"federation": "hospitals"})
LABELS = 4
"""Of an attempt."""
BOTH = MappingProxyType({"ward": LABELS, "lodge": 8})


def federated(**state: object) -> Bench:
    return Bench(trainer=ScribeTrainer(federation="hospitals"), settings=FEDERATED, **state)  # type: ignore[arg-type]


def closed(
    number: int = 1,
    base: str = "ward-0",
    samples: Mapping[str, int] = BOTH,
    refused: Mapping[str, str] = MappingProxyType({}),
    federation: str = "hospitals",
) -> RoundClosed:
    """A round that started from a version and is merged."""
    return RoundClosed(
        time=EPOCH + timedelta(days=number),
        federation=federation,
        number=number,
        site_id="ward",
        base_sha256=digest(base),
        merged=artifact(f"merged-{number}"),
        merged_sha256=digest(f"merged-{number}"),
        aggregator="soft-vote",
        samples=dict(samples),
        refused=dict(refused),
        reason="a test",
    )


@pytest.fixture
def bench() -> Bench:
    """A site that has trained and waits for its federation."""
    return federated().send(release(0, "ward-0"), request(), *new_examples(LABELS))


def only(bench: Bench) -> CandidateTrained:
    (candidate,) = bench.candidates
    return candidate


def alone(labels: int = LABELS) -> CandidateTrained:
    """What a site in no federation makes of the same labels."""
    return only(Bench().send(release(0, "ward-0"), request(), *new_examples(labels)))


def test_what_was_trained_is_submitted_and_no_candidate_yet(bench: Bench) -> None:
    (update,) = bench.updates
    assert bench.candidates == []
    assert bench.adaptation.phase is Phase.WAITING
    assert bench.adaptation.update == update
    assert (update.request_id, update.attempt, update.samples) == (request().event_id, 1, LABELS)
    assert update.time == new_examples(LABELS)[-1].time


def test_what_the_round_merged_is_the_candidate(bench: Bench) -> None:
    bench.send(closed())
    candidate = only(bench)
    assert bench.adaptation.phase is Phase.JUDGED
    assert candidate.version == bench.adaptation.candidate != alone().version
    assert (candidate.attempt, candidate.labels_used) == (1, LABELS)
    assert candidate.federated == "merged in round 1 of hospitals with lodge"
    assert candidate.time == closed().time


@pytest.mark.parametrize(
    ("round_", "why"),
    [
        (closed(samples={"lodge": 8}, refused={"ward": "damaged"}), "damaged"),
        (closed(base="another"), "it had gone on from other weights"),
        (closed(samples={"lodge": 8}), "it had gone on from other weights"),
    ],
    ids=["refused", "stale", "never there"],
)
def test_where_its_update_was_left_out_the_site_goes_on_with_its_own_model(
    bench: Bench, round_: RoundClosed, why: str
) -> None:
    candidate = only(bench.send(round_))
    assert candidate.version == alone().version
    assert candidate.federated == f"not merged in round 1 of hospitals: {why}"


def test_a_round_that_is_never_closed_is_waited_for_as_long_as_an_attempt_takes(bench: Bench) -> None:
    *more, last = new_examples(2 * LABELS)[LABELS:]
    bench.send(*more)
    assert bench.candidates == []
    bench.send(*more, request())
    assert bench.candidates == [], "a repeat is no further label"
    candidate = only(bench.send(last))
    assert candidate.version == alone().version
    assert candidate.federated == "not merged: 4 labels later no round had been closed"
    assert candidate.time == last.time
    bench.send(closed())
    assert len(bench.candidates) == 1, "it came too late"
    assert bench.state.round == closed()


def test_a_full_log_does_not_make_a_site_wait_for_ever() -> None:
    small = FEDERATED.model_copy(update={"open_memory": LABELS})
    bench = federated()
    bench.settings = small
    bench.send(release(0, "ward-0"), request(), *new_examples(2 * LABELS))
    assert len(bench.state.examples) == LABELS
    assert only(bench).federated.startswith("not merged")


def test_labels_of_devices_that_did_not_change_count_for_the_wait(bench: Bench) -> None:
    bench.send(*[example(i, device="ward/scanner-2", study=f"other-{i}") for i in range(LABELS)])
    assert only(bench).federated.startswith("not merged")


def test_a_model_that_can_not_be_merged_is_a_candidate_at_once() -> None:
    bench = federated()
    bench.trainer.unmergeable = True
    bench.send(release(0, "ward-0"), request(), *new_examples(LABELS))
    assert bench.updates == []
    assert only(bench).version == alone().version
    assert only(bench).federated == "not submitted: a test"


def test_without_a_federation_nothing_is_submitted_or_said() -> None:
    bench = Bench().send(release(0, "ward-0"), request(), *new_examples(LABELS), closed())
    assert bench.updates == []
    assert only(bench).federated == ""
    assert bench.state.round is None


def test_another_federation_s_round_changes_nothing(bench: Bench) -> None:
    before = bench.state
    assert bench.send(closed(federation="elsewhere")).state == before
    assert bench.candidates == []


def test_repeats_change_nothing(bench: Bench) -> None:
    waiting = bench.state
    assert bench.send(request(), *new_examples(LABELS), release(0, "ward-0")).state == waiting
    judged = bench.send(closed()).state
    assert bench.send(closed(), *new_examples(LABELS), request()).state == judged
    assert (len(bench.updates), len(bench.candidates)) == (1, 1)


def test_a_merged_candidate_turned_down_leaves_the_site_to_itself(bench: Bench) -> None:
    merged = only(bench.send(closed()))
    bench.send(release(1, merged.version, ReleaseStage.REJECTED))
    bench.send(*new_examples(2 * LABELS)[LABELS:])
    assert len(bench.updates) == 1
    assert [made.attempt for made in bench.candidates] == [1, 2]
    assert bench.candidates[1].federated == "not submitted: round 1 of hospitals went on from other weights"


def test_a_merged_candidate_that_is_released_is_the_next_round_s_base(bench: Bench) -> None:
    bench.send(closed(base="ward-0"))
    merged = only(bench).version
    following = closed().model_copy(update={"merged_sha256": digest(merged)})
    bench.state = bench.state.model_copy(update={"round": following})
    asked = request(base=merged).model_copy(update={"onset": {"ward/scanner-1": 200}})
    bench.send(release(1, merged), asked, *new_examples(LABELS, 200))
    assert [update.base_version for update in bench.updates] == ["ward-0", merged]
    bench.send(closed(number=1), closed(number=2, base=merged))
    assert bench.candidates[-1].federated == "merged in round 2 of hospitals with lodge"


def test_a_merged_model_that_is_broken_is_refused_and_the_site_goes_on(bench: Bench) -> None:
    bench.trainer.broken = closed().merged.url
    before = bench.state
    with pytest.raises(InvalidEvent):
        bench.send(closed())
    assert bench.state == before
    bench.send(*new_examples(2 * LABELS)[LABELS:])
    assert only(bench).version == alone().version


def test_another_version_released_ends_the_wait(bench: Bench) -> None:
    bench.send(release(1, "ward-by-hand"), closed())
    assert bench.state.adaptation is None
    assert bench.candidates == []


def test_killed_anywhere_and_resumed_from_its_state_the_candidates_are_the_same() -> None:
    events: Sequence[Event] = [
        release(0, "ward-0"),
        *[example(i) for i in range(8)],
        request(),
        *new_examples(LABELS + 2),
        closed(),
        closed(),
        *new_examples(LABELS + 3)[LABELS + 2 :],
    ]
    clean = federated().send(*events)
    assert [made.federated for made in clean.candidates] == ["merged in round 1 of hospitals with lodge"]
    for killed_after in range(1, len(events)):
        first = federated().send(*events[:killed_after])
        resumed = federated(
            catalog=first.catalog,
            state=LearningState.model_validate_json(first.state.model_dump_json()),
            candidates=first.candidates,
            updates=first.updates,
        ).send(*events[killed_after:])
        assert resumed.candidates == clean.candidates
        assert resumed.updates == clean.updates
        assert resumed.state == clean.state


def test_a_site_that_left_its_federation_does_not_wait_for_ever(bench: Bench) -> None:
    learning = Learning(SETTINGS, ScribeTrainer(), bench.catalog.release_of)
    state, made = learning.step(bench.state, closed())
    assert (state, list(made)) == (bench.state, [])
    for more in new_examples(2 * LABELS)[LABELS:]:
        state, made = learning.step(state, more)
    assert [type(each) for each in made] == [CandidateTrained]
