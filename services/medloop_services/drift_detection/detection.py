"""Follows one device's detectors through micro-batches and late labels: the core of drift_detection.

Signals are levels: after every micro-batch, and after every few labels, where all detectors stand. When
another model version begins to serve, its own detectors start afresh and what the old one said is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from medloop_schemas import DriftSignalled, Event, LabelConfirmed, StatsMeasured

from medloop_services.drift_detection.panel import Panel, PanelState
from medloop_services.drift_detection.settings import DriftDetectionSettings
from medloop_services.drift_detection.state import DetectionState, PredictedImage, WaitingLabel
from medloop_services.drift_detection.unlabelled import drawn

PanelOf = Callable[[str], Panel]
"""A model version → its calibrated detectors. Raises TransientError while the version is unknown."""


def step(
    state: DetectionState, event: Event, settings: DriftDetectionSettings, panel_of: PanelOf
) -> tuple[DetectionState, Sequence[DriftSignalled]]:
    """Apply one micro-batch or label; a repeat changes nothing.

    Returns:
        The new state and at most one signal.

    Raises:
        InvalidEvent: statistics that the version's reference does not have, or a version without a reference.
        TransientError: the model version is not known yet, or its package can't be fetched.
    """
    match event:
        case StatsMeasured() if event.last_sequence > state.last_image:
            panel = panel_of(event.model_version)
            state = _with_images(state, event, settings, panel)
            return state, (_signal(state, panel, event.time),)
        case LabelConfirmed() if event.sequence > state.last_label:
            return _with_label(state, event, settings, panel_of)
        case _:
            return state, ()


def _with_images(
    state: DetectionState, event: StatsMeasured, settings: DriftDetectionSettings, panel: Panel
) -> DetectionState:
    changed = event.model_version != state.model_version
    before = panel.initial() if changed or state.panel is None else state.panel
    predictions = {} if changed else dict(state.predictions)
    for image in event.images:
        predictions[image.image_id] = PredictedImage(
            sequence=image.sequence, predicted_class=image.predicted_class
        )
    state = state.model_copy(
        update={
            "site_id": event.site_id,
            "model_version": event.model_version,
            "last_image": event.last_sequence,
            "panel": panel.after_images(before, event),
            "predictions": predictions,
        }
    )
    for image in event.images:
        if image.image_id in state.labels:
            state = _counted(state, image.image_id, panel)
    return _bounded(state, settings)


def _with_label(
    state: DetectionState, event: LabelConfirmed, settings: DriftDetectionSettings, panel_of: PanelOf
) -> tuple[DetectionState, Sequence[DriftSignalled]]:
    waiting = WaitingLabel(
        sequence=event.sequence, class_index=event.class_index, class_name=event.class_name
    )
    state = state.model_copy(
        update={"labels": {**state.labels, event.image_id: waiting}, "last_label": event.sequence}
    )
    if event.image_id not in state.predictions or state.model_version is None:
        return _bounded(state, settings), ()
    panel = panel_of(state.model_version)
    state = _counted(state, event.image_id, panel)
    due = state.panel is not None and state.panel.labels_seen % settings.labels_per_signal == 0
    return state, (_signal(state, panel, event.time),) if due else ()


def _counted(state: DetectionState, image_id: str, panel: Panel) -> DetectionState:
    """Count the label of an image of which both halves are here."""
    predictions, labels = dict(state.predictions), dict(state.labels)
    predicted, label = predictions.pop(image_id), labels.pop(image_id)
    counted = panel.after_label(
        _remembered(state), predicted.predicted_class, label.class_index, label.class_name, predicted.sequence
    )
    return state.model_copy(update={"panel": counted, "predictions": predictions, "labels": labels})


def _bounded(state: DetectionState, settings: DriftDetectionSettings) -> DetectionState:
    """Let go of the oldest halves that have waited too long."""
    predictions, labels = dict(state.predictions), dict(state.labels)
    while len(predictions) > settings.pending_predictions:
        del predictions[min(predictions, key=lambda image: predictions[image].sequence)]
    while len(labels) > settings.pending_labels:
        del labels[min(labels, key=lambda image: labels[image].sequence)]
    return state.model_copy(update={"predictions": predictions, "labels": labels})


def _remembered(state: DetectionState) -> PanelState:
    if state.panel is None:
        raise AssertionError("labels are counted only once an image has been measured")
    return state.panel


def _signal(state: DetectionState, panel: Panel, time: datetime) -> DriftSignalled:
    memory = _remembered(state)
    readings = panel.readings(memory)
    return DriftSignalled(
        time=time,
        device_id=state.device_id,
        site_id=str(state.site_id),
        model_version=str(state.model_version),
        sequence=state.last_image,
        labels_seen=memory.labels_seen,
        images_seen=memory.images_seen,
        readings=readings,
        labels=panel.label_error.evidence(memory.labels),
        shifted_share=panel.shifted_share(memory),
        accuracy=panel.accuracy.estimate(memory.accuracy) if panel.accuracy is not None else None,
        unlabelled=drawn(state.predictions) if any(reading.alarmed for reading in readings) else (),
    )
