from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_schemas import (
    AdaptationRequested,
    Diagnosis,
    Event,
    ExampleLabelled,
    Frame,
    ImageAcquired,
    InvalidEvent,
    LabelConfirmed,
    PredictionMade,
    ServingStage,
    Strategy,
)
from medloop_services.online_learner.pairing import step
from medloop_services.online_learner.settings import LearnerSettings
from medloop_services.online_learner.state import PairingState

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
DEVICE = "ward/scanner-1"
SETTINGS = LearnerSettings(pending_images=64, pending_labels=8)


def at(minute: float) -> datetime:
    return EPOCH + timedelta(minutes=minute)


def image(sequence: int) -> ImageAcquired:
    return ImageAcquired(
        time=at(sequence),
        image_id=f"image-{sequence}",
        device_id=DEVICE,
        site_id="ward",
        study_id=f"study-{sequence}",
        sequence=sequence,
        frame=Frame.inline(bytes([sequence] * 4), height=2, width=2),
    )


def prediction(sequence: int, predicted: int = 0) -> PredictionMade:
    return PredictionMade(
        time=at(sequence),
        image_id=f"image-{sequence}",
        device_id=DEVICE,
        site_id="ward",
        sequence=sequence,
        model_version="ward-1",
        model_digest="0" * 64,
        stage=ServingStage.STABLE,
        classes=("normal", "opacity"),
        predicted_class=predicted,
        probabilities=(0.5, 0.5),
        logits=(0.0, 0.0),
        augmented_probabilities=(0.5, 0.5),
        embedding=(0.0,),
    )


def label(sequence: int, of: int, revision: int = 1, class_index: int = 1) -> LabelConfirmed:
    return LabelConfirmed(
        time=at(of + 30),
        image_id=f"image-{of}",
        device_id=DEVICE,
        site_id="ward",
        sequence=sequence,
        revision=revision,
        class_index=class_index,
        class_name=("normal", "opacity")[class_index],
    )


def run(
    events: Sequence[Event], chosen: LearnerSettings = SETTINGS
) -> tuple[PairingState, list[ExampleLabelled]]:
    state, examples = PairingState(), []
    for event in events:
        state, completed = step(state, event, chosen)
        examples += completed
    return state, examples


def test_an_image_its_prediction_and_its_label_become_an_example() -> None:
    _, (example,) = run([image(0), prediction(0, predicted=1), label(0, of=0)])
    assert example.image_id == "image-0"
    assert example.frame == image(0).frame
    assert (example.study_id, example.image_sequence, example.label_sequence) == ("study-0", 0, 0)
    assert (example.predicted_class, example.model_version) == (1, "ward-1")
    assert (example.class_index, example.class_name, example.revision) == (1, "opacity", 1)
    assert example.time == at(30)


LABELS = [label(0, of=2), label(1, of=0), label(2, of=1), label(3, of=2, revision=2, class_index=0)]


@given(order=st.permutations([0] * 3 + [1] * 3 + [2] * 4))
@settings(deadline=None)
def test_no_interleaving_of_the_three_topics_changes_the_examples_or_their_order(order: list[int]) -> None:
    topics: list[list[Event]] = [
        [image(i) for i in range(3)],
        [prediction(i) for i in range(3)],
        list(LABELS),
    ]
    state, examples = run([topics[topic].pop(0) for topic in order])
    assert [(example.image_id, example.revision) for example in examples] == [
        ("image-2", 1),
        ("image-0", 1),
        ("image-1", 1),
        ("image-2", 2),
    ]
    assert state.labels == {}
    assert state.unmatched == 0


def test_repeats_of_any_event_change_nothing() -> None:
    events: list[Event] = [image(0), prediction(0), label(0, of=0)]
    state, examples = run(events)
    assert run([*events, *events]) == (state, examples)


def test_a_corrected_label_makes_a_second_example_and_an_outdated_one_none() -> None:
    corrected = label(1, of=0, revision=3, class_index=0)
    outdated = label(2, of=0, revision=2, class_index=1)
    _, examples = run([image(0), prediction(0), label(0, of=0), corrected, outdated])
    assert [(example.revision, example.class_name) for example in examples] == [(1, "opacity"), (3, "normal")]


def test_a_label_waits_for_an_image_that_is_late() -> None:
    state, examples = run([label(0, of=1), image(0), prediction(0)])
    assert examples == []
    assert len(state.labels) == 1
    state, examples = run([label(0, of=1), image(0), prediction(0), image(1), prediction(1)])
    assert [example.image_id for example in examples] == ["image-1"]


def test_a_label_of_an_image_that_inference_refused_is_given_up_at_the_next_prediction() -> None:
    refused = [image(0), image(1), label(0, of=0), label(1, of=1)]
    state, examples = run(refused)
    assert examples == []
    assert state.unmatched == 0
    state, examples = run([*refused, prediction(1)])
    assert [example.image_id for example in examples] == ["image-1"]
    assert state.unmatched == 1


def test_a_label_of_an_image_that_never_came_is_given_up_after_a_younger_image() -> None:
    state, examples = run([label(0, of=0), label(1, of=40), image(40), prediction(40)])
    assert [example.image_id for example in examples] == ["image-40"]
    assert state.unmatched == 1


def test_a_prediction_whose_image_was_unreadable_makes_no_example() -> None:
    state, examples = run([prediction(0), label(0, of=0), image(1), prediction(1), label(1, of=1)])
    assert [example.image_id for example in examples] == ["image-1"]
    assert state.unmatched == 1


def test_images_are_bounded_and_the_oldest_goes_first() -> None:
    few = LearnerSettings(pending_images=2)
    state, _ = run([event for i in range(5) for event in (image(i), prediction(i))], few)
    assert sorted(state.images) == ["image-3", "image-4"]


def test_labels_are_bounded_and_the_oldest_goes_first() -> None:
    state, _ = run([label(i, of=i) for i in range(10)])
    assert sorted(state.labels) == [f"{i:012d}" for i in range(2, 10)]
    assert state.unmatched == 2


def test_a_rebuilt_state_goes_on_alike_whatever_the_order_its_entries_came_back_in() -> None:
    before: list[Event] = [label(0, of=1), label(1, of=0), image(0), prediction(0)]
    state, _ = run(before)
    rebuilt = state.model_copy(
        update={
            "labels": dict(reversed(state.labels.items())),
            "images": dict(reversed(state.images.items())),
        }
    )
    for event in (image(1), prediction(1)):
        state, alive = step(state, event, SETTINGS)
        rebuilt, resumed = step(rebuilt, event, SETTINGS)
        assert alive == resumed
    assert [example.image_id for example in alive] == ["image-1", "image-0"]


def test_another_event_is_refused() -> None:
    request = AdaptationRequested(
        time=EPOCH,
        site_id="ward",
        diagnosis=Diagnosis.DATA_DRIFT,
        strategy=Strategy.SHALLOW_EWC,
        base_version="ward-1",
        onset={DEVICE: 0},
        detector="mmd",
        evidence=("a test",),
    )
    with pytest.raises(InvalidEvent):
        step(PairingState(), request, SETTINGS)


def test_nothing_is_learned_from_an_image_of_a_broken_device() -> None:
    withheld = prediction(0).model_copy(update={"withheld": True})
    state, examples = run([image(0), withheld, label(0, of=0), image(1), prediction(1), label(1, of=1)])
    assert [example.image_id for example in examples] == ["image-1"]
    assert state.unmatched == 1


def test_a_device_that_counts_anew_is_told() -> None:
    """A swapped scanner starts at 0 again: passed for repeats, its images would never be learned from."""
    state, _ = run([image(7), prediction(7)])
    anew = image(0).model_copy(update={"time": at(1000)})
    with pytest.raises(InvalidEvent, match="has counted to 7 and now says 0") as refused:
        step(state, anew, SETTINGS)
    assert refused.value.code == "sequence"
    assert step(state, image(7), SETTINGS) == (state, [])
    assert step(state, image(5), SETTINGS) == (state, [])


def test_a_label_from_a_clock_that_is_ahead_holds_no_other_up() -> None:
    ahead = label(0, of=99).model_copy(update={"time": at(60 * 24 * 365)})
    stream: list[Event] = [ahead]
    for number in range(40):
        stream += [image(number), prediction(number)]
        if number < 6:
            stream.append(label(number + 1, of=number))
    state, examples = run(stream)
    assert [example.image_id for example in examples] == [f"image-{number}" for number in range(6)]
    assert (state.unmatched, state.labels) == (1, {})
