"""Joins images with their predictions and gathers micro-batches: the core of feature_stats.

A device's predictions come in the order of its images, so the earliest prediction that waits is served first;
images that it has overtaken will never get a prediction and are let go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from medloop_model.statistics import activation_statistics, data_statistics, decision_statistics
from medloop_schemas import Event, ImageAcquired, ImageStatistics, InvalidEvent, PredictionMade, StatsMeasured
from medloop_schemas.image import Frame
from numpy.typing import NDArray

from medloop_services.feature_stats.settings import FeatureStatsSettings
from medloop_services.feature_stats.state import JoinState, MeasuredPrediction, sequence_key

Pixels = Callable[[Frame], NDArray[np.uint8]]
"""A frame → its pixels, uint8 (H, W, C)."""


def step(
    state: JoinState, event: Event, settings: FeatureStatsSettings, pixels: Pixels
) -> tuple[JoinState, Sequence[StatsMeasured]]:
    """Apply one image or prediction; a repeat changes nothing.

    Returns:
        The new state and the micro-batches it completed.

    Raises:
        InvalidEvent: an image that can't be measured, or a prediction that contradicts itself.
        TransientError: the store of a frame sent by reference is away.
    """
    match event:
        case ImageAcquired() if event.sequence > state.last_image:
            state = _with_image(state, event, settings, pixels)
        case PredictionMade() if event.sequence > state.last_prediction:
            waiting = {**state.predictions, sequence_key(event.sequence): measured(event)}
            state = state.model_copy(
                update={"predictions": waiting, "last_prediction": event.sequence},
            )
        case _:
            return state, ()
    return _join(state, settings)


def measured(event: PredictionMade) -> MeasuredPrediction:
    """Return a prediction's decision, activation and feature layers.

    Raises:
        InvalidEvent: logits and augmented probabilities are of different lengths.
    """
    if len(event.logits) != len(event.augmented_probabilities):
        raise InvalidEvent(
            "shape",
            "augmented_probabilities",
            f"{len(event.augmented_probabilities)} values for {len(event.logits)} logits",
        )
    logits = np.array([event.logits], np.float32)
    augmented = np.array([event.augmented_probabilities], np.float32)
    blocks = np.array(
        [[(block.mean, block.spread, block.saturated, block.dead) for block in event.blocks]], np.float32
    ).reshape(1, -1, 4)
    statistics = ImageStatistics(
        image_id=event.image_id,
        sequence=event.sequence,
        predicted_class=event.predicted_class,
        data={},
        decision=_only_row(decision_statistics(logits, augmented)),
        activation=_only_row(activation_statistics(blocks)),
        embedding=event.embedding,
        probabilities=event.probabilities,
    )
    return MeasuredPrediction(
        site_id=event.site_id, model_version=event.model_version, time=event.time, statistics=statistics
    )


def _with_image(
    state: JoinState, event: ImageAcquired, settings: FeatureStatsSettings, pixels: Pixels
) -> JoinState:
    try:
        data = _only_row(data_statistics(pixels(event.frame)[np.newaxis]))
    except ValueError as error:
        raise InvalidEvent("shape", "frame", str(error)) from error
    images = {**state.images, sequence_key(event.sequence): data}
    while len(images) > settings.pending_images:
        del images[min(images)]
    return state.model_copy(update={"images": images, "last_image": event.sequence})


def _join(state: JoinState, settings: FeatureStatsSettings) -> tuple[JoinState, Sequence[StatsMeasured]]:
    images, predictions, batch = dict(state.images), dict(state.predictions), dict(state.batch)
    outputs: list[StatsMeasured] = []
    while predictions:
        earliest = min(predictions)
        if earliest not in images:
            if not _is_lost(state, int(earliest)) and len(predictions) <= settings.pending_predictions:
                break
            del predictions[earliest]
            continue
        complete = _complete(predictions.pop(earliest), images[earliest])
        images = {key: data for key, data in images.items() if key > earliest}
        if batch and next(iter(batch.values())).model_version != complete.model_version:
            outputs.append(_flush(state.device_id, batch))
            batch = {}
        batch[earliest] = complete
        if len(batch) >= settings.batch_images:
            outputs.append(_flush(state.device_id, batch))
            batch = {}
    joined = state.model_copy(update={"images": images, "predictions": predictions, "batch": batch})
    return joined, outputs


def _is_lost(state: JoinState, sequence: int) -> bool:
    """Return whether an image that is not here can't come any more: later ones have been."""
    return sequence <= state.last_image


def _complete(prediction: MeasuredPrediction, data: dict[str, float]) -> MeasuredPrediction:
    statistics = prediction.statistics.model_copy(update={"data": data})
    return prediction.model_copy(update={"statistics": statistics})


def _flush(device_id: str, batch: dict[str, MeasuredPrediction]) -> StatsMeasured:
    rows = [batch[key] for key in sorted(batch)]
    return StatsMeasured(
        time=max(row.time for row in rows),
        device_id=device_id,
        site_id=rows[-1].site_id,
        model_version=rows[-1].model_version,
        images=tuple(row.statistics for row in rows),
    )


def _only_row(statistics: dict[str, NDArray[np.float32]]) -> dict[str, float]:
    return {name: float(values[0]) for name, values in statistics.items()}
