"""What devices, clocks and models do wrong, through the core of feature_stats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_schemas import (
    Event,
    Frame,
    ImageAcquired,
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
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def pixels(frame: Frame) -> NDArray[np.uint8]:
    return np.frombuffer(frame.pixels(), np.uint8).reshape(frame.height, frame.width)


def image(sequence: int, days: float = 0) -> ImageAcquired:
    return ImageAcquired(
        time=EPOCH + timedelta(days=days),
        image_id=f"image-{sequence}",
        device_id="device",
        site_id="site",
        study_id=f"study-{sequence}",
        sequence=sequence,
        frame=Frame.inline(bytes(range(64)), height=8, width=8),
    )


def prediction(sequence: int, days: float = 0) -> PredictionMade:
    return PredictionMade(
        time=EPOCH + timedelta(days=days),
        image_id=f"image-{sequence}",
        device_id="device",
        site_id="site",
        sequence=sequence,
        model_version="ward-1",
        model_digest="0" * 64,
        stage=ServingStage.STABLE,
        classes=("normal", "opacity"),
        predicted_class=0,
        probabilities=(0.5, 0.5),
        logits=(0.0, 0.0),
        augmented_probabilities=(0.4, 0.6),
        embedding=(0.1, 0.2),
        blocks=(BlockActivation(mean=0.1, spread=0.2, saturated=0.3, dead=0.0),),
    )


def run(events: Sequence[Event], device: str = "device") -> tuple[JoinState, list[StatsMeasured]]:
    state, outputs = JoinState(device_id=device), list[StatsMeasured]()
    for event in events:
        state, new = step(state, event, SETTINGS, pixels)
        outputs += new
    return state, outputs


# --- numbers that are none -----------------------------------------------------------------------------


@pytest.mark.parametrize("logits", [(3e38, -3e38), (1e30, 1e30), (-1e30, 0.0)])
def test_the_largest_finite_logits_are_measured_in_finite_numbers(logits: tuple[float, float]) -> None:
    """Softmax and energy must not overflow: their results would be refused downstream, image after image."""
    events: list[Event] = []
    for n in range(4):
        events += [image(n), prediction(n).model_copy(update={"logits": logits})]
    _, (batch,) = run(events)
    assert all(math.isfinite(value) for row in batch.images for value in row.decision.values())


# --- devices -------------------------------------------------------------------------------------------


def test_one_image_a_day_fills_a_micro_batch_in_days() -> None:
    events: list[Event] = [event for n in range(5) for event in (image(n, days=n), prediction(n, days=n))]
    state, (batch,) = run(events)
    assert [row.sequence for row in batch.images] == [0, 1, 2, 3]
    assert batch.time == EPOCH + timedelta(days=3)
    assert len(state.batch) == 1


def test_a_device_never_seen_before_may_start_at_any_image() -> None:
    events: list[Event] = [event for n in range(70_000, 70_004) for event in (image(n), prediction(n))]
    _, (batch,) = run(events, device="another")
    assert (batch.device_id, batch.first_sequence) == ("another", 70_000)


# --- clocks --------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3_000, 3_000), min_size=8, max_size=8))
def test_a_clock_that_jumps_back_and_forth_changes_no_statistic_and_no_order(days: list[int]) -> None:
    steady: list[Event] = [event for n in range(8) for event in (image(n), prediction(n))]
    jumping: list[Event] = [event for n in range(8) for event in (image(n, days[n]), prediction(n, days[n]))]
    _, usual = run(steady)
    _, jumped = run(jumping)
    assert [batch.images for batch in jumped] == [batch.images for batch in usual]
    assert [batch.event_id for batch in jumped] == [batch.event_id for batch in usual]
    assert jumped[0].time == EPOCH + timedelta(days=max(days[:4]))


def test_an_image_dated_after_its_prediction_is_joined() -> None:
    events: list[Event] = [event for n in range(4) for event in (image(n, days=9), prediction(n))]
    _, (batch,) = run(events)
    assert len(batch.images) == 4
