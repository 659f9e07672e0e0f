"""Pairing: an image, what was served for it and its late label become one example.

The three come from three topics in any order between them. Examples of a device leave in the order of its
labels, so that a consumer tells a repeat by the label's sequence number alone.
"""

from __future__ import annotations

from medloop_schemas import (
    Event,
    ExampleLabelled,
    ImageAcquired,
    InvalidEvent,
    LabelConfirmed,
    PredictionMade,
)
from medloop_schemas.event import latest

from medloop_services.online_learner.settings import LearnerSettings
from medloop_services.online_learner.state import PairingState, PendingImage


def step(
    state: PairingState, event: Event, settings: LearnerSettings
) -> tuple[PairingState, list[ExampleLabelled]]:
    """Return the device's state after one event, and the examples it completes.

    Raises:
        InvalidEvent: the event is none of the three, or an image of a device that counts anew.
    """
    match event:
        case ImageAcquired():
            return _released(_with_image(state, event, settings))
        case PredictionMade():
            return _released(_with_prediction(state, event, settings))
        case LabelConfirmed():
            return _released(_with_label(state, event, settings))
    raise InvalidEvent("type", "", f"pairing can't use {type(event).__name__}")


def _with_image(state: PairingState, image: ImageAcquired, settings: LearnerSettings) -> PairingState:
    if image.sequence <= state.last_image:
        if state.last_image_time is None or image.time <= state.last_image_time:
            return state
        raise InvalidEvent(
            "sequence",
            "sequence",
            f"{image.device_id} has counted to {state.last_image} and now says {image.sequence}, at a later "
            "time: let it go on counting, or give it another device_id",
        )
    known = state.images.get(image.image_id, PendingImage(sequence=image.sequence))
    pending = known.model_copy(
        update={"study_id": image.study_id, "acquired": image.time, "frame": image.frame}
    )
    return state.model_copy(
        update={
            "images": _kept(state.images | {image.image_id: pending}, settings.pending_images),
            "last_image": image.sequence,
            "last_image_time": image.time,
        }
    )


def _with_prediction(
    state: PairingState, prediction: PredictionMade, settings: LearnerSettings
) -> PairingState:
    if prediction.sequence <= state.last_prediction:
        return state
    if prediction.withheld:  # no picture: its label, if somebody gives it one, has nothing to teach
        return state.model_copy(update={"last_prediction": prediction.sequence})
    known = state.images.get(prediction.image_id, PendingImage(sequence=prediction.sequence))
    pending = known.model_copy(
        update={
            "predicted_class": prediction.predicted_class,
            "model_version": prediction.model_version,
        }
    )
    return state.model_copy(
        update={
            "images": _kept(state.images | {prediction.image_id: pending}, settings.pending_images),
            "last_prediction": prediction.sequence,
        }
    )


def _with_label(state: PairingState, label: LabelConfirmed, settings: LearnerSettings) -> PairingState:
    if label.sequence <= state.last_label:
        return state
    labels = state.labels | {f"{label.sequence:012d}": label}
    given_up = max(0, len(labels) - settings.pending_labels)
    for oldest in sorted(labels)[:given_up]:
        del labels[oldest]
    return state.model_copy(
        update={"labels": labels, "last_label": label.sequence, "unmatched": state.unmatched + given_up}
    )


def _kept(images: dict[str, PendingImage], limit: int) -> dict[str, PendingImage]:
    """Let the oldest images go: by sequence and not by arrival, so that interleaving does not matter."""
    for _ in range(len(images) - limit):
        del images[min(images, key=lambda image_id: images[image_id].sequence)]
    return images


def _released(state: PairingState) -> tuple[PairingState, list[ExampleLabelled]]:
    """Turn labels into examples in their order, up to the first whose image is not complete yet."""
    images, labels, unmatched = dict(state.images), dict(state.labels), state.unmatched
    examples: list[ExampleLabelled] = []
    for place, label in sorted(state.labels.items()):
        pending = images.get(label.image_id)
        example = None if pending is None else _example(pending, label)
        if example is None and _may_still_come(state, label, pending):
            break
        del labels[place]
        if example is None or pending is None:
            unmatched += 1
        elif label.revision > pending.revision:
            examples.append(example)
            images[label.image_id] = pending.model_copy(update={"revision": label.revision})
    if len(labels) == len(state.labels):
        return state, []
    return state.model_copy(update={"images": images, "labels": labels, "unmatched": unmatched}), examples


def _may_still_come(state: PairingState, label: LabelConfirmed, pending: PendingImage | None) -> bool:
    """A device's images come in order, so one that was overtaken was refused or let go, and never comes."""
    if pending is None:
        # A later label bounds when this one was given, whatever a clock that is ahead has said.
        given = min(
            (each.time for each in state.labels.values() if each.sequence > label.sequence),
            default=label.time,
        )
        return state.last_image_time is None or state.last_image_time <= min(given, label.time)
    if pending.frame is None:
        return state.last_image < pending.sequence
    return state.last_prediction < pending.sequence


def _example(pending: PendingImage, label: LabelConfirmed) -> ExampleLabelled | None:
    if (
        pending.frame is None
        or pending.acquired is None
        or pending.study_id is None
        or pending.predicted_class is None
        or pending.model_version is None
    ):
        return None
    return ExampleLabelled(
        time=latest(label.time, pending.acquired),
        image_id=label.image_id,
        device_id=label.device_id,
        site_id=label.site_id,
        study_id=pending.study_id,
        image_sequence=pending.sequence,
        label_sequence=label.sequence,
        revision=label.revision,
        class_index=label.class_index,
        class_name=label.class_name,
        predicted_class=pending.predicted_class,
        model_version=pending.model_version,
        frame=pending.frame,
    )
