from __future__ import annotations

import pytest
from medloop_schemas import (
    AdaptationRequested,
    CandidateTrained,
    Diagnosis,
    Event,
    InvalidEvent,
    ReleaseStage,
    Strategy,
    TransientError,
)
from medloop_services.publisher.audit import AuditChain, Decision, verify_chains
from medloop_services.publisher.origin import FirstReleases
from medloop_services.publisher.rollout import canary_devices
from medloop_services.publisher.state import PublisherState
from publisher_desk import (
    CANARY_DEVICE,
    DEVICES,
    EPOCH,
    FIRST,
    NEW,
    OLD,
    ONSET,
    SETTINGS,
    Desk,
    artifact,
    canary_examples,
    candidate,
    drawn,
    example,
    held,
)


@pytest.fixture
def desk() -> Desk:
    return Desk().send(*OLD, *NEW)


def test_a_better_candidate_becomes_a_canary_on_a_share_of_the_devices(desk: Desk) -> None:
    desk.send(candidate())
    (release,) = desk.releases
    assert release.stage is ReleaseStage.CANARY
    assert release.devices == (CANARY_DEVICE,)
    assert (release.number, release.version, release.previous_version) == (1, "ward-1", "ward-0")
    assert release.teacher == FIRST.teacher
    assert release.request_id == candidate().request_id
    assert desk.decisions == [Decision.GATE_PASSED, Decision.CANARY_STARTED]
    evidence = desk.records[0].evidence
    assert evidence["new_base"] == 0.0
    assert evidence["new_candidate"] == 1.0
    assert evidence["old_studies"] == 16
    assert evidence["candidate_sha256"] == artifact("ward-1").sha256


def test_the_record_says_why_the_candidate_was_trained_so(desk: Desk) -> None:
    why = {
        "why": ("Images look different.", "There is no teacher."),
        "why_codes": ("data-drift", "no-teacher"),
    }
    desk.send(candidate().model_copy(update=why))
    evidence = desk.records[0].evidence
    assert evidence["why_trained_so"] == "Images look different. There is no teacher."
    assert evidence["why_codes"] == "data-drift no-teacher"


def test_the_gate_waits_until_there_is_enough_to_judge_by() -> None:
    desk = Desk().send(*OLD, *NEW[:11], candidate())
    assert desk.outputs == []
    assert desk.state.waiting == candidate()
    desk.send(NEW[11])
    assert desk.decisions == [Decision.GATE_PASSED, Decision.CANARY_STARTED]
    assert desk.state.waiting is None


def test_trainable_examples_do_not_judge() -> None:
    desk = Desk().send(*OLD, candidate())
    trainable = [example(sequence) for sequence, _ in zip(drawn(ONSET, held=False), range(40), strict=False)]
    desk.send(*trainable)
    assert desk.outputs == []
    assert desk.evaluator.asked == 0


def test_without_a_sure_gain_a_candidate_is_rejected(desk: Desk) -> None:
    desk.evaluator.right["ward-1"] = {"old"}
    desk.send(candidate())
    (release,) = desk.releases
    assert release.stage is ReleaseStage.REJECTED
    assert release.devices == ()
    assert desk.decisions == [Decision.GATE_FAILED]
    assert "no gain is sure" in desk.records[0].reason
    assert desk.state.stable == FIRST


def test_a_candidate_that_forgets_is_rejected(desk: Desk) -> None:
    desk.evaluator.right["ward-1"] = {"new"}
    desk.send(candidate())
    assert desk.releases[0].stage is ReleaseStage.REJECTED
    assert "loses on 16 old studies" in desk.records[0].reason
    assert desk.records[0].evidence["old_candidate"] == 0.0


def test_a_candidate_that_is_less_often_right_than_it_says_is_rejected(desk: Desk) -> None:
    """It gains on new studies; on old ones it is right throughout and says so of three in five."""
    desk.evaluator.confidence["ward-1"] = 0.6
    desk.send(candidate())
    assert desk.releases[0].stage is ReleaseStage.REJECTED
    assert "on 16 old studies: calibration error 0.000 → 0.400" in desk.records[0].reason
    evidence = desk.records[0].evidence
    assert evidence["new_base_calibration_error"] == 1.0
    assert evidence["old_candidate_calibration_error"] == pytest.approx(0.4)
    assert evidence["old_calibration_growth_lower"] == pytest.approx(0.4)
    assert evidence["calibration_tolerance"] == 0.05


def test_how_much_calibration_may_suffer_is_a_setting() -> None:
    desk = Desk(settings=SETTINGS.model_copy(update={"calibration_tolerance": 0.5})).send(*OLD, *NEW)
    desk.evaluator.confidence["ward-1"] = 0.6
    desk.send(candidate())
    assert desk.releases[0].stage is ReleaseStage.CANARY


def test_a_study_that_is_shown_again_counts_once() -> None:
    shown_again = [
        example(NEW[0].image_sequence + 1_000 + repeat, study=NEW[0].study_id) for repeat in range(4)
    ]
    desk = Desk().send(*OLD, *NEW, *shown_again, candidate())
    assert desk.records[0].evidence["new_studies"] == len(NEW)


def test_many_images_of_one_study_make_no_gain_sure() -> None:
    shown_again = [
        example(NEW[0].image_sequence + 1_000 + repeat, study=NEW[0].study_id) for repeat in range(40)
    ]
    desk = Desk().send(*OLD, NEW[0], *shown_again, candidate())
    assert desk.decisions == [Decision.GATE_FAILED]
    assert "no gain is sure on 1 new studies" in desk.records[0].reason


def test_under_a_new_policy_old_labels_do_not_count(desk: Desk) -> None:
    desk.evaluator.right["ward-1"] = {"new"}
    desk.send(candidate(diagnosis=Diagnosis.CONCEPT_DRIFT))
    assert desk.releases[0].stage is ReleaseStage.CANARY
    assert "do not count" in desk.records[0].reason
    assert "old_studies" not in desk.records[0].evidence


def test_too_few_old_images_block_a_release() -> None:
    desk = Desk().send(*OLD[:5], *NEW, candidate())
    assert desk.releases[0].stage is ReleaseStage.REJECTED
    assert "5 old images are too few" in desk.records[0].reason


def test_old_images_may_be_waived_by_settings() -> None:
    desk = Desk(settings=SETTINGS.model_copy(update={"min_old": 0})).send(*NEW, candidate())
    assert desk.releases[0].stage is ReleaseStage.CANARY
    assert "no old images" in desk.records[0].reason


def test_a_class_the_base_lacks_counts_as_wrong_for_it() -> None:
    classes = ("normal", "opacity", "nodule")
    desk = Desk()
    desk.evaluator.right["ward-0"] = {"old", "new"}
    desk.evaluator.announced["ward-1"] = classes
    nodules = [
        example(new.image_sequence, name="nodule") if place % 3 == 0 else new for place, new in enumerate(NEW)
    ]
    desk.send(*OLD, *nodules, candidate(diagnosis=Diagnosis.NEW_CLASS, classes=classes))
    assert desk.releases[0].stage is ReleaseStage.CANARY
    assert desk.releases[0].classes == classes
    assert desk.records[0].evidence["new_base"] == pytest.approx(2 / 3)
    assert desk.records[0].evidence["new_candidate"] == 1.0


def test_an_image_of_the_new_class_is_new_even_before_the_estimated_onset() -> None:
    classes = ("normal", "opacity", "nodule")
    desk = Desk()
    desk.evaluator.right = {"ward-0": {"old", "new"}, "ward-1": {"new", "old"}}
    desk.evaluator.announced["ward-1"] = classes
    early = [
        example(taken.image_sequence, name="nodule") if place % 4 == 0 else taken
        for place, taken in enumerate(OLD)
    ]
    desk.send(*early, *NEW, candidate(diagnosis=Diagnosis.NEW_CLASS, classes=classes))
    assert desk.records[0].evidence["old_studies"] == 12
    assert desk.records[0].evidence["old_base"] == 1.0
    assert desk.records[0].evidence["new_studies"] == 20


def test_a_broken_package_is_rejected_with_its_reason(desk: Desk) -> None:
    desk.evaluator.broken.add("ward-1")
    desk.send(candidate())
    assert desk.releases[0].stage is ReleaseStage.REJECTED
    assert "ward-1 is cut short" in desk.records[0].reason
    assert desk.records[0].evidence["code"] == "corrupt-checkpoint"


def test_a_package_with_other_classes_than_announced_is_rejected(desk: Desk) -> None:
    desk.evaluator.announced["ward-1"] = ("opacity", "normal")
    desk.send(candidate())
    assert desk.releases[0].stage is ReleaseStage.REJECTED
    assert "as announced" in desk.records[0].reason


@pytest.mark.parametrize(
    ("unfit", "reason"),
    [
        (candidate(base="ward-9"), "was trained from ward-9, but ward-0 serves now"),
        (candidate(classes=("opacity", "normal")), "do not continue"),
    ],
)
def test_a_candidate_that_does_not_follow_what_serves_is_rejected(
    desk: Desk, unfit: CandidateTrained, reason: str
) -> None:
    desk.send(unfit)
    assert desk.releases[0].stage is ReleaseStage.REJECTED
    assert reason in desk.records[0].reason
    assert desk.evaluator.asked == 0


def test_a_good_canary_is_promoted_to_every_device(desk: Desk) -> None:
    desk.send(candidate(), *canary_examples([True] * 5))
    assert len(desk.releases) == 1
    desk.send(*canary_examples([True], start=6000))
    promoted = desk.releases[-1]
    assert promoted.stage is ReleaseStage.STABLE
    assert (promoted.number, promoted.previous_version, promoted.devices) == (2, "ward-0", ())
    assert desk.state.stable == promoted
    assert desk.state.trial is None
    assert desk.decisions[-1] == Decision.PROMOTED
    assert desk.records[-1].evidence["canary_candidate_right"] == 6
    assert desk.records[-1].evidence["canary_base_right"] == 0


def test_a_canary_a_little_worse_than_its_base_is_tolerated(desk: Desk) -> None:
    desk.evaluator.right["ward-0"] = {"old"}
    desk.send(candidate())
    desk.evaluator.right["ward-0"] = {"old", "new"}
    desk.send(*canary_examples([True] * 5 + [False]))
    assert desk.releases[-1].stage is ReleaseStage.STABLE
    assert desk.records[-1].evidence["canary_base_right"] == 6


def test_a_canary_worse_than_its_base_is_rolled_back_at_the_last_image(desk: Desk) -> None:
    desk.send(candidate())
    desk.evaluator.right["ward-0"] = {"old", "new"}
    desk.send(*canary_examples([False, False, True, True, True, True]))
    assert desk.releases[-1].stage is ReleaseStage.ROLLED_BACK
    assert desk.records[-1].evidence["canary_examples"] == 6
    assert desk.state.stable == FIRST
    assert desk.state.trial is None
    assert desk.decisions[-1] == Decision.ROLLED_BACK


def test_a_canary_that_cannot_catch_up_is_rolled_back_at_once(desk: Desk) -> None:
    desk.send(candidate())
    desk.evaluator.right["ward-0"] = {"old", "new"}
    desk.send(*canary_examples([False] * 4))
    assert desk.releases[-1].stage is ReleaseStage.ROLLED_BACK
    assert desk.records[-1].evidence["canary_examples"] == 4


def test_images_of_other_devices_do_not_count_for_the_canary(desk: Desk) -> None:
    others = [taken.model_copy(update={"model_version": "ward-0"}) for taken in canary_examples([True] * 10)]
    desk.send(candidate(), *others)
    assert desk.state.trial is not None
    assert desk.state.trial.outcomes == {}


def test_an_image_whose_study_may_have_been_trained_on_does_not_count_for_the_canary(desk: Desk) -> None:
    study = next(f"study-{sequence}" for sequence in drawn(3000, held=False))
    desk.send(example(3000, study=study), candidate())
    desk.send(example(5000, study=study, device=CANARY_DEVICE, served_by="ward-1"))
    assert desk.state.trial is not None
    assert desk.state.trial.outcomes == {}


def test_a_corrected_label_replaces_the_outcome_of_its_image(desk: Desk) -> None:
    (first,) = canary_examples([True])
    wrong = "opacity" if first.class_name == "normal" else "normal"
    corrected = example(
        first.label_sequence + 1,
        study=first.study_id,
        device=CANARY_DEVICE,
        image=first.image_id,
        served_by="ward-1",
        predicted=first.predicted_class,
        name=wrong,
        revision=2,
    )
    desk.send(candidate(), first)
    assert desk.state.trial is not None
    assert desk.state.trial.outcomes[first.image_id].candidate_right
    desk.send(corrected)
    assert len(desk.state.trial.outcomes) == 1
    assert not desk.state.trial.outcomes[first.image_id].candidate_right


def test_a_corrected_label_replaces_a_held_back_example() -> None:
    study = OLD[0].study_id
    corrected = example(900, study=study, image=OLD[0].image_id, name="opacity", revision=2)
    desk = Desk().send(*OLD, corrected)
    kept = [kept for kept in desk.state.examples.values() if kept.image_id == OLD[0].image_id]
    assert kept == [corrected]


def test_a_second_candidate_has_to_wait_its_turn(desk: Desk) -> None:
    desk.send(candidate(), candidate("ward-2", attempt=2))
    assert desk.releases[-1].stage is ReleaseStage.REJECTED
    assert "one candidate at a time" in desk.records[-1].reason
    assert desk.state.trial is not None
    assert desk.state.trial.candidate == candidate()
    waiting = Desk().send(*OLD, candidate(), candidate("ward-2", attempt=2))
    assert waiting.state.waiting == candidate()
    assert [release.version for release in waiting.releases] == ["ward-2"]


def test_after_a_rejection_the_next_attempt_is_judged(desk: Desk) -> None:
    desk.evaluator.right["ward-1"] = {"old"}
    desk.send(candidate(), candidate("ward-2", attempt=2))
    assert [release.stage for release in desk.releases] == [ReleaseStage.REJECTED, ReleaseStage.CANARY]
    assert [release.number for release in desk.releases] == [1, 2]


def test_repeats_change_nothing_at_any_stage(desk: Desk) -> None:
    events: list[Event] = [candidate(), *canary_examples([True] * 6)]
    for count in range(1, len(events) + 1):
        desk.send(events[count - 1])
        state, outputs = desk.state, list(desk.outputs)
        desk.send(*OLD, *NEW, *events[:count])
        assert desk.state == state
        assert desk.outputs == outputs


def test_every_decision_is_on_one_chain_that_begins_with_the_first_release(desk: Desk) -> None:
    desk.evaluator.right["ward-1"] = {"old"}
    desk.send(candidate(), candidate("ward-2", attempt=2), *canary_examples([True] * 6, version="ward-2"))
    end = verify_chains(desk.chain)["ward"]
    assert end == desk.state.audit
    assert end.length == 1 + len(desk.records)


def test_killed_anywhere_and_resumed_from_its_state_it_decides_alike() -> None:
    events: list[Event] = [*OLD, candidate(), *NEW, *canary_examples([True] * 6)]
    clean = Desk().send(*events)
    assert clean.releases[-1].stage is ReleaseStage.STABLE
    for killed_after in range(len(events)):
        first = Desk().send(*events[:killed_after])
        stored = PublisherState.model_validate_json(first.state.model_dump_json())
        shuffled = stored.model_copy(
            update={
                "examples": dict(reversed(stored.examples.items())),
                "studies": dict(reversed(stored.studies.items())),
            }
        )
        resumed = Desk(state=shuffled, outputs=first.outputs).send(*events[killed_after:])
        assert resumed.outputs == clean.outputs
        assert resumed.state == clean.state


def test_a_store_that_is_away_leaves_everything_as_it_was(desk: Desk) -> None:
    desk.evaluator.away = True
    before = desk.state
    with pytest.raises(TransientError):
        desk.send(candidate())
    assert desk.state == before
    desk.evaluator.away = False
    desk.send(candidate())
    assert desk.releases[0].stage is ReleaseStage.CANARY


def test_memory_is_bounded() -> None:
    small = SETTINGS.model_copy(update={"memory": 32, "studies": 8})
    desk = Desk(settings=small).send(*[example(sequence) for sequence in range(400)])
    assert len(desk.state.examples) == 32
    assert len(desk.state.studies) == 8
    newest = [sequence for sequence in range(400) if example(sequence).held_back][-32:]
    assert sorted(kept.image_sequence for kept in desk.state.examples.values()) == newest


def test_a_site_without_a_model_is_told_to_configure_one() -> None:
    with pytest.raises(InvalidEvent, match="MEDLOOP_PUBLISHER_SITES"):
        Desk(state=PublisherState()).send(candidate())


def test_another_event_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidEvent):
        desk.send(FIRST)


def test_canary_devices_are_a_share_rounded_up_and_differ_between_versions() -> None:
    onset = {f"ward/scanner-{number}": 0 for number in range(10)}
    chosen = {
        canary_devices(candidate(f"ward-{number}").model_copy(update={"onset": onset}), 0.25)
        for number in range(20)
    }
    assert all(len(devices) == 3 for devices in chosen)
    assert len(chosen) > 10
    assert canary_devices(candidate(), 0.01) == (CANARY_DEVICE,)


def test_the_initial_state_continues_after_the_first_release() -> None:
    state = FirstReleases({"ward": FIRST}).initial("ward")
    assert (state.next_release, state.audit.length) == (1, 1)
    assert state.audit != AuditChain()


def test_new_images_that_arrive_while_a_model_trains_do_not_push_out_the_old_ones() -> None:
    request = AdaptationRequested(
        time=EPOCH,
        site_id="ward",
        diagnosis=Diagnosis.DATA_DRIFT,
        strategy=Strategy.SHALLOW_EWC,
        base_version="ward-0",
        onset=dict.fromkeys(DEVICES, ONSET),
        detector="cusum",
        evidence=("the inputs have shifted",),
    )
    desk = Desk().send(*held(40, 0), request, *held(3 * SETTINGS.memory, ONSET), candidate())
    assert len(desk.state.examples) == SETTINGS.memory
    old = [each for each in desk.state.examples.values() if each.image_sequence < ONSET]
    assert len(old) == SETTINGS.memory // 2
    assert desk.decisions == [Decision.GATE_PASSED, Decision.CANARY_STARTED]
