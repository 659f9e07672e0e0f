"""The images a site is judged by, and the studies that do not count because they may have been trained on."""

from __future__ import annotations

from collections.abc import Mapping

from medloop_schemas import ExampleLabelled

from medloop_services.publisher.settings import PublisherSettings
from medloop_services.publisher.state import PublisherState


def was_taken(state: PublisherState, example: ExampleLabelled) -> bool:
    """Return whether an example is a repeat: a device's examples come in the order of its labels."""
    return example.label_sequence <= state.last_labels.get(example.device_id, -1)


def is_new(example: ExampleLabelled, onset: Mapping[str, int]) -> bool:
    """Return whether an example is from after the estimated change of its device."""
    return example.device_id in onset and example.image_sequence >= onset[example.device_id]


def taken_in(state: PublisherState, example: ExampleLabelled, settings: PublisherSettings) -> PublisherState:
    """Return the state with one more example; a corrected label takes the place of the earlier one."""
    update = {
        "next_number": state.next_number + 1,
        "last_labels": state.last_labels | {example.device_id: example.label_sequence},
        **(_held_back if example.held_back else _trainable)(state, example, settings),
    }
    return state.model_copy(update=update)


def _held_back(
    state: PublisherState, example: ExampleLabelled, settings: PublisherSettings
) -> dict[str, object]:
    others = {
        place: earlier for place, earlier in state.examples.items() if earlier.image_id != example.image_id
    }
    while len(others) >= settings.memory:
        del others[_dispensable(others, state.onset)]
    return {"examples": others | {f"{state.next_number:012d}": example}}


def _dispensable(examples: Mapping[str, ExampleLabelled], onset: Mapping[str, int]) -> str:
    """The oldest example; while an adaptation is under way, of the larger of the old and the new domain.

    Training takes its time, and the new images that arrive meanwhile must not push out all old ones.
    """
    new = {place for place, each in examples.items() if is_new(each, onset)}
    return min(new if 2 * len(new) >= len(examples) else examples.keys() - new)


def _trainable(
    state: PublisherState, example: ExampleLabelled, settings: PublisherSettings
) -> dict[str, object]:
    if example.study_id in state.studies:
        return {}
    studies = state.studies | {example.study_id: state.next_number}
    while len(studies) > settings.studies:
        del studies[min(studies, key=lambda study_id: studies[study_id])]
    return {"studies": studies}
