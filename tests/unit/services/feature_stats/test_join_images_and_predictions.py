from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_schemas import (
    Event,
    Frame,
    ImageAcquired,
    InvalidEvent,
    PredictionMade,
    ServingStage,
    StatsMeasured,
)
from medloop_schemas.prediction import BlockActivation
from medloop_services.feature_stats.join import step
from medloop_services.feature_stats.settings import FeatureStatsSettings
from medloop_services.feature_stats.state import JoinState
from numpy.typing import NDArray

SETTINGS = FeatureStatsSettings(batch_images=4, pending_images=16, pending_predictions=8)


def pixels(frame: Frame) -> NDArray[np.uint8]:
    return np.frombuffer(frame.pixels(), np.uint8).reshape(frame.height, frame.width)


def moment(sequence: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=sequence)


def image(sequence: int, level: int | None = None, side: int = 8) -> ImageAcquired:
    content = bytes([level if level is not None else sequence % 250]) * (side * side)
    return ImageAcquired(
        time=moment(sequence),
        image_id=f"image-{sequence}",
        device_id="device",
        site_id="site",
        study_id=f"study-{sequence}",
        sequence=sequence,
        frame=Frame.inline(content, height=side, width=side),
    )


def prediction(sequence: int, version: str = "ward-1") -> PredictionMade:
    return PredictionMade(
        time=moment(sequence),
        image_id=f"image-{sequence}",
        device_id="device",
        site_id="site",
        sequence=sequence,
        model_version=version,
        model_digest="0" * 64,
        stage=ServingStage.STABLE,
        classes=("normal", "opacity"),
        predicted_class=sequence % 2,
        probabilities=(0.5, 0.5),
        logits=(0.0, 0.0),
        augmented_probabilities=(0.4, 0.6),
        embedding=(0.1, float(sequence)),
        blocks=(BlockActivation(mean=0.1, spread=0.2, saturated=0.3, dead=0.0),),
    )


def run(
    events: list[Event], settings: FeatureStatsSettings = SETTINGS
) -> tuple[JoinState, list[StatsMeasured]]:
    state, outputs = JoinState(device_id="device"), list[StatsMeasured]()
    for event in events:
        state, new = step(state, event, settings, pixels)
        outputs += new
    return state, outputs


def sequences(outputs: list[StatsMeasured]) -> list[list[int]]:
    return [[row.sequence for row in output.images] for output in outputs]


def pairs(numbers: range) -> list[Event]:
    return list(itertools.chain.from_iterable((image(n), prediction(n)) for n in numbers))


def test_a_micro_batch_holds_all_four_layers_of_consecutive_images() -> None:
    _, (first, second) = run(pairs(range(9)))
    assert sequences([first, second]) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    row = first.images[3]
    assert row.image_id == "image-3"
    assert row.data["intensity"] == pytest.approx(3 / 255)
    assert row.decision["inconsistency"] == pytest.approx(0.2, rel=1e-5)
    assert row.activation["block0.spread"] == pytest.approx(0.2)
    assert row.embedding == (0.1, 3.0)
    assert first.time == moment(3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_how_the_two_streams_interleave_changes_nothing(seed: int) -> None:
    chooser = random.Random(seed)
    images: list[Event] = [image(n) for n in range(8)]
    predictions: list[Event] = [prediction(n) for n in range(8)]
    events: list[Event] = []
    while images or predictions:
        stream = chooser.choice([stream for stream in (images, predictions) if stream])
        events.append(stream.pop(0))
    _, outputs = run(events)
    assert outputs == run(pairs(range(8)))[1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 15), max_size=6))
def test_repeats_change_neither_state_nor_outputs(places: list[int]) -> None:
    events = pairs(range(8))
    repeated = [again for n, event in enumerate(events) for again in [event] * (1 + places.count(n))]
    assert run(repeated) == run(events)


def test_another_model_version_closes_the_batch_early() -> None:
    events = pairs(range(2))
    for number in range(2, 6):
        events += [image(number), prediction(number, "ward-2")]
    _, outputs = run(events)
    assert sequences(outputs) == [[0, 1], [2, 3, 4, 5]]
    assert [output.model_version for output in outputs] == ["ward-1", "ward-2"]


def test_an_image_that_got_no_prediction_holds_nothing_up() -> None:
    events = [event for event in pairs(range(5)) if event != prediction(1)]
    state, outputs = run(events)
    assert sequences(outputs) == [[0, 2, 3, 4]]
    assert not state.images


def test_a_prediction_whose_image_was_refused_is_let_go() -> None:
    events = [event for event in pairs(range(5)) if event != image(1)]
    _, outputs = run(events)
    assert sequences(outputs) == [[0, 2, 3, 4]]


def test_what_waits_is_bounded() -> None:
    state, _ = run([image(n) for n in range(100)])
    assert len(state.images) == SETTINGS.pending_images
    state, _ = run([prediction(n) for n in range(100)])
    assert len(state.predictions) == SETTINGS.pending_predictions


def test_the_state_survives_its_json() -> None:
    state, _ = run([*pairs(range(2)), image(2), image(3)])
    restored = JoinState.model_validate_json(state.model_dump_json())
    assert restored == state
    assert step(restored, prediction(2), SETTINGS, pixels) == step(state, prediction(2), SETTINGS, pixels)


def test_an_image_too_small_to_measure_is_an_invalid_event() -> None:
    with pytest.raises(InvalidEvent, match="3 pixels a side") as raised:
        run([image(0, side=2)])
    assert raised.value.field == "frame"


def test_a_prediction_that_contradicts_itself_is_an_invalid_event() -> None:
    broken = prediction(0).model_copy(update={"augmented_probabilities": (1.0,)})
    with pytest.raises(InvalidEvent, match="1 values for 2 logits"):
        run([broken])
