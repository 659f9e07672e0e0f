from __future__ import annotations

from collections.abc import Sequence

import pytest
from learning_bench import (
    DEVICE,
    EPOCH,
    SETTINGS,
    Bench,
    ScribeTrainer,
    example,
    new_examples,
    release,
    request,
)
from medloop_schemas import (
    Diagnosis,
    Event,
    InvalidEvent,
    LabelConfirmed,
    ReleaseStage,
    TransientError,
)
from medloop_services.online_learner.learning import Learning
from medloop_services.online_learner.state import LearningState, Phase


@pytest.fixture
def bench() -> Bench:
    return Bench().send(release(0, "ward-0"))


def test_nothing_is_trained_before_it_is_asked_for(bench: Bench) -> None:
    bench.send(*new_examples(10))
    assert bench.trainer.batches == []
    assert bench.state.adaptation is None
    assert len(bench.state.examples) == 10


def test_one_update_a_mini_batch_then_a_candidate(bench: Bench) -> None:
    bench.send(request())
    first, second, third, fourth = new_examples(4)
    bench.send(first)
    assert bench.trainer.batches == []
    bench.send(second)
    assert bench.trainer.batches == [(first.image_id, second.image_id)]
    bench.send(third, fourth)
    (candidate,) = bench.candidates
    assert bench.adaptation.phase is Phase.JUDGED
    assert (candidate.labels_used, candidate.updates, candidate.attempt) == (4, 6, 1)
    assert candidate.base_version == "ward-0"
    assert candidate.request_id == request().event_id
    assert candidate.loss_first == pytest.approx((1 + 1 / 3) / 2)
    assert candidate.time == fourth.time


def test_examples_that_came_before_the_request_count(bench: Bench) -> None:
    bench.send(*new_examples(4), request())
    assert len(bench.candidates) == 1


def test_old_examples_are_for_rehearsal_and_those_after_the_request_are_left_out(bench: Bench) -> None:
    before = [taken for taken in (example(i) for i in range(6)) if not taken.held_back]
    other = example(0, device="ward/scanner-2", study="study-0b")
    late = example(7)
    bench.send(*before, request(), other, late, *new_examples(4))
    (material,) = bench.trainer.finished
    assert material.old == tuple(before)
    assert other not in material.old


def test_held_back_examples_are_never_trained_on(bench: Bench) -> None:
    everything = [example(i) for i in range(100, 160)]
    bench.send(*[example(i) for i in range(16)], request(), *everything)
    (material,) = bench.trainer.finished
    assert any(taken.held_back for taken in everything)
    assert not any(entry.example.held_back for entry in material.new)
    assert not any(old.held_back for old in material.old)
    held_images = {taken.image_id for taken in everything if taken.held_back}
    assert not held_images & {name for batch in bench.trainer.batches for name in batch}


def test_the_reference_is_made_of_what_devices_send_now(bench: Bench) -> None:
    steady = example(0, device="ward/scanner-2", study="study-0b")
    held = next(example(i) for i in range(100, 200) if example(i).held_back)
    bench.send(example(1), steady, held, request(), *new_examples(8, held.image_sequence + 1))
    (material,) = bench.trainer.finished
    assert steady in material.present
    assert example(1) not in material.present
    assert held in material.present


def test_a_class_the_model_lacks_is_left_out_unless_the_head_is_expanded(bench: Bench) -> None:
    unknown = [taken.model_copy(update={"class_name": "nodule"}) for taken in new_examples(2)]
    bench.send(*unknown, request())
    assert bench.trainer.batches == []
    expanding = Bench().send(release(0, "ward-0"), *unknown, request(Diagnosis.NEW_CLASS))
    assert expanding.trainer.batches == [tuple(taken.image_id for taken in unknown)]
    assert expanding.candidates[0].classes == ("normal", "opacity", "nodule")


@pytest.mark.parametrize("stage", [ReleaseStage.REJECTED, ReleaseStage.ROLLED_BACK])
def test_a_candidate_turned_down_is_trained_on_with_more_labels(bench: Bench, stage: ReleaseStage) -> None:
    bench.send(request(), *new_examples(6))
    assert len(bench.trainer.batches) == 2
    bench.send(release(1, bench.candidates[0].version, stage))
    assert len(bench.trainer.batches) == 3
    assert bench.adaptation.phase is Phase.TRAINING
    bench.send(*new_examples(8)[6:])
    assert [made.attempt for made in bench.candidates] == [1, 2]
    assert bench.candidates[1].labels_used == 8
    assert bench.candidates[0].event_id != bench.candidates[1].event_id


def test_after_the_last_attempt_the_request_is_given_up(bench: Bench) -> None:
    bench.send(request(), *new_examples(8))
    bench.send(release(1, bench.candidates[0].version, ReleaseStage.REJECTED))
    bench.send(release(2, bench.candidates[1].version, ReleaseStage.REJECTED))
    assert bench.state.adaptation is None
    bench.send(request(), *new_examples(20)[8:])
    assert len(bench.candidates) == 2
    assert len(bench.state.examples) == SETTINGS.memory


def test_a_canary_is_still_being_judged(bench: Bench) -> None:
    bench.send(request(), *new_examples(4))
    bench.send(release(1, bench.candidates[0].version, ReleaseStage.CANARY))
    assert bench.adaptation.phase is Phase.JUDGED


def test_a_released_candidate_settles_the_request_and_is_the_next_base(bench: Bench) -> None:
    bench.send(request(), *new_examples(4))
    version = bench.candidates[0].version
    bench.send(release(1, version, ReleaseStage.CANARY), release(2, version))
    assert bench.state.adaptation is None
    assert bench.state.stable == release(2, version)
    bench.send(request(), request(Diagnosis.CONCEPT_DRIFT))
    assert bench.state.adaptation is None, "both answer a version that has been replaced"
    bench.send(request(Diagnosis.CONCEPT_DRIFT, base=version))
    assert bench.adaptation.base.version == version


def test_another_version_released_ends_the_work_on_the_old_one(bench: Bench) -> None:
    bench.send(request(), *new_examples(2), release(1, "ward-by-hand"))
    assert bench.state.adaptation is None
    bench.send(*new_examples(4)[2:])
    assert bench.candidates == []


def test_a_repeated_request_changes_nothing(bench: Bench) -> None:
    bench.send(request(), *new_examples(3))
    before = bench.state
    assert bench.send(request(), request(Diagnosis.NEW_CLASS)).state == before


def test_repeated_examples_and_releases_change_nothing(bench: Bench) -> None:
    bench.send(request(), *new_examples(6))
    rejected = release(1, bench.candidates[0].version, ReleaseStage.REJECTED)
    bench.send(rejected)
    before, batches = bench.state, list(bench.trainer.batches)
    bench.send(rejected, *new_examples(6), release(0, "ward-0"))
    assert bench.state == before
    assert bench.trainer.batches == batches


def test_a_request_for_a_version_that_is_not_known_yet_waits(bench: Bench) -> None:
    with pytest.raises(TransientError, match="ward-9"):
        bench.send(request(base="ward-9"))


def test_a_request_for_a_version_that_is_not_stable_is_passed_over(bench: Bench) -> None:
    bench.send(release(1, "ward-1", ReleaseStage.CANARY), request(base="ward-1"))
    assert bench.state.adaptation is None


def test_a_store_that_is_away_leaves_the_state_as_it_was(bench: Bench) -> None:
    bench.send(request(), *new_examples(1))
    before, bench.trainer.away = bench.state, True
    with pytest.raises(TransientError):
        bench.send(new_examples(2)[1])
    assert bench.state == before
    bench.trainer.away = False
    bench.send(new_examples(2)[1])
    assert len(bench.trainer.batches) == 1


def test_a_request_to_adapt_a_broken_model_is_refused_and_the_stream_goes_on(bench: Bench) -> None:
    bench.trainer.broken = "ward-0"
    with pytest.raises(InvalidEvent):
        bench.send(request())
    bench.send(*new_examples(4))
    assert bench.state.adaptation is None
    assert len(bench.state.examples) == 4


def test_an_unreadable_example_is_refused_and_not_remembered(bench: Bench) -> None:
    bench.trainer.unreadable = example(100).image_id
    with pytest.raises(InvalidEvent):
        bench.send(example(100))
    assert bench.state.examples == {}


def test_a_corrected_label_takes_the_place_of_the_first(bench: Bench) -> None:
    first = example(3)
    corrected = example(4, image=first.image_id, study=first.study_id, name="opacity", revision=2)
    bench.send(first, corrected)
    assert list(bench.state.examples.values()) == [corrected]


def test_a_label_corrected_after_it_was_trained_on_is_trained_on_again(bench: Bench) -> None:
    first, second, third, _ = new_examples(4)
    corrected = example(
        third.label_sequence + 100, image=first.image_id, study=first.study_id, name="opacity", revision=2
    )
    bench.send(request(), first, second, third, corrected)
    assert bench.trainer.batches[0] == (first.image_id, second.image_id)
    assert bench.trainer.batches[1] == (third.image_id, first.image_id)
    bench.send(release(1, bench.candidates[0].version))
    assert [kept.revision for kept in bench.state.examples.values() if kept.image_id == first.image_id] == [2]


def test_a_corrected_label_of_an_old_image_rides_along_with_the_next_mini_batch(bench: Bench) -> None:
    old = [taken for taken in map(example, range(20)) if not taken.held_back][:3]
    corrected = [
        example(200 + number, image=taken.image_id, study=taken.study_id, name="opacity", revision=2)
        for number, taken in enumerate(old)
    ]
    corrected = [taken.model_copy(update={"image_sequence": 5}) for taken in corrected]
    first, second, third, fourth = [
        taken.model_copy(update={"label_sequence": number})
        for taken, number in zip(new_examples(4), (198, 199, 201, 300), strict=True)
    ]
    bench.send(*old, request(), first, second, corrected[0], third)
    assert bench.trainer.corrected == [()]
    late = corrected[2].model_copy(update={"label_sequence": 301})
    bench.send(fourth, late)
    assert bench.trainer.corrected == [(), (old[0].image_id,)]
    (candidate,) = bench.candidates
    assert (candidate.labels_used, candidate.labels_corrected) == (4, 1)
    assert [kept.class_name for kept in bench.trainer.finished[0].old] == ["normal"] * 3
    bench.send(release(1, candidate.version, ReleaseStage.REJECTED))
    bench.send(
        *[taken.model_copy(update={"label_sequence": 400 + n}) for n, taken in enumerate(new_examples(6)[4:])]
    )
    assert bench.trainer.corrected[2] == (old[2].image_id,)


def test_a_held_back_correction_is_never_trained_on(bench: Bench) -> None:
    held = next(example(i) for i in range(100) if example(i).held_back)
    corrected = example(150, image=held.image_id, study=held.study_id, name="opacity", revision=2)
    bench.send(held, request(), corrected.model_copy(update={"image_sequence": held.image_sequence}))
    bench.send(*new_examples(6, 151)[:4])
    assert bench.trainer.corrected == [(), ()]


def test_a_mini_batch_that_was_undone_is_told_and_the_stream_goes_on(bench: Bench) -> None:
    bench.trainer.undone = 1
    bench.send(request(), *new_examples(4))
    (candidate,) = bench.candidates
    assert (candidate.labels_used, candidate.labels_quarantined) == (2, 2)
    assert candidate.loss_first == candidate.loss_last == pytest.approx(1 / 3)


def test_where_nothing_could_be_learned_more_labels_are_waited_for_and_then_it_is_given_up(
    bench: Bench,
) -> None:
    bench.trainer.undone = 3
    bench.send(request(), *new_examples(4))
    assert bench.candidates == []
    assert (bench.adaptation.attempt, bench.adaptation.phase) == (2, Phase.TRAINING)
    bench.send(*new_examples(8)[4:])
    assert [made.attempt for made in bench.candidates] == [2]
    hopeless = Bench(trainer=ScribeTrainer(undone=99)).send(release(0, "ward-0"), request())
    hopeless.send(*new_examples(8))
    assert hopeless.candidates == []
    assert hopeless.state.adaptation is None


def test_of_two_requests_at_once_the_first_is_answered_and_the_other_can_come_again(bench: Bench) -> None:
    bench.send(request(), request(Diagnosis.CONCEPT_DRIFT), *new_examples(4))
    (candidate,) = bench.candidates
    assert candidate.diagnosis is Diagnosis.DATA_DRIFT
    bench.send(release(1, candidate.version))
    bench.send(request(Diagnosis.CONCEPT_DRIFT, base=candidate.version))
    assert bench.adaptation.request.diagnosis is Diagnosis.CONCEPT_DRIFT


def test_a_full_log_lets_go_of_what_nothing_is_trained_on(bench: Bench) -> None:
    small = SETTINGS.model_copy(update={"open_memory": 64, "labels_shallow": 40})
    learning = Learning(small, bench.trainer, bench.catalog.release_of)
    elsewhere = [example(i, device="ward/scanner-2", study=f"study-{i}b") for i in range(200)]
    old = [example(i) for i in range(10)]
    state = bench.send(*old, request()).state
    for taken in [*elsewhere, *new_examples(40)]:
        state, made = learning.step(state, taken)
        assert len(state.examples) <= 64
    assert len(made) == 1, "the last label completes the candidate"
    (material,) = bench.trainer.finished
    assert [taken.image_id for taken in material.old] == [x.image_id for x in old if not x.held_back]
    assert elsewhere[-1] in material.present
    assert elsewhere[0] not in material.present


def numbers(bench: Bench) -> list[int]:
    return [kept.image_sequence for _, kept in sorted(bench.state.examples.items())]


def test_memory_between_adaptations_is_half_for_the_last_and_half_for_all_before(bench: Bench) -> None:
    bench.send(*[example(i) for i in range(400)])
    kept = numbers(bench)
    assert len(kept) == SETTINGS.memory
    assert kept[8:] == list(range(392, 400))
    assert min(kept) < 200, "what is kept of before is not only the end of it"


def test_a_rare_class_keeps_half_of_what_is_kept_of_before(bench: Bench) -> None:
    rare = {10, 50, 90, 130}
    bench.send(*[example(i, name="opacity" if i in rare else "normal") for i in range(400)])
    assert set(numbers(bench)[:8]) > rare


def test_ten_drifts_in_a_row_leave_a_share_of_every_domain(bench: Bench) -> None:
    for drift in range(1, 11):
        base = "ward-0" if drift == 1 else bench.candidates[-1].version
        asked = request(base=base).model_copy(update={"onset": {DEVICE: 100 * drift}})
        bench.send(*new_examples(40, 100 * drift - 60), asked, *new_examples(4, 100 * drift))
        bench.send(release(drift, bench.candidates[-1].version))
    bench.send(*[example(i) for i in range(1100, 1120)])
    before = [place // 100 for place in numbers(bench)[:8]]
    assert len(before) == len(set(before)), "eight of the domains with one example each"


def test_killed_anywhere_and_resumed_from_its_state_the_candidate_is_the_same() -> None:
    events: Sequence[Event] = [
        release(0, "ward-0"),
        *[example(i) for i in range(20)],
        request(),
        *new_examples(4),
    ]
    clean = Bench().send(*events)
    for killed_after in range(1, len(events)):
        first = Bench().send(*events[:killed_after])
        stored = LearningState.model_validate_json(first.state.model_dump_json())
        shuffled = stored.model_copy(update={"examples": dict(reversed(stored.examples.items()))})
        resumed = Bench(catalog=first.catalog, state=shuffled, candidates=first.candidates)
        resumed.send(*events[killed_after:])
        assert resumed.candidates == clean.candidates
        assert resumed.state == clean.state


def test_another_event_is_refused(bench: Bench) -> None:
    label = LabelConfirmed(
        time=EPOCH,
        image_id="image",
        device_id=DEVICE,
        site_id="ward",
        sequence=0,
        class_index=0,
        class_name="normal",
    )
    with pytest.raises(InvalidEvent):
        bench.send(label)
