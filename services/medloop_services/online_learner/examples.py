"""The example log of a site: what arrived, in order, and which of it an adaptation may use, and for what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medloop_schemas import AdaptationRequested, ExampleLabelled, ReleaseChanged, Strategy

from medloop_services.online_learner.settings import LearnerSettings
from medloop_services.online_learner.state import Adaptation, LearningState


@dataclass(frozen=True, slots=True)
class Numbered:
    """An example and its number in the log."""

    number: int
    example: ExampleLabelled


@dataclass(frozen=True, slots=True)
class Material:
    """What an adaptation has to work with, each in order of arrival.

    Attributes:
        old: from before the change and before the request; trained on as rehearsal.
        new: from after the change; trained on.
        present: what devices send now, for the reference that travels with the candidate; never trained on
            for being in here.
    """

    old: tuple[ExampleLabelled, ...]
    new: tuple[Numbered, ...]
    present: tuple[ExampleLabelled, ...]


def taken_in(state: LearningState, example: ExampleLabelled, settings: LearnerSettings) -> LearningState:
    """Return the state with one more example; a repeat changes nothing, a corrected label takes its place."""
    if example.label_sequence <= state.last_labels.get(example.device_id, -1):
        return state
    examples = dict(state.examples)
    fixed_below = 0 if state.adaptation is None else state.adaptation.fixed_below
    for place, earlier in state.examples.items():
        if earlier.image_id == example.image_id and int(place) >= fixed_below:
            del examples[place]
    if state.adaptation is None or len(examples) < settings.open_memory:
        examples[_place(state.next_number)] = example
    return trimmed(
        state.model_copy(
            update={
                "examples": examples,
                "next_number": state.next_number + 1,
                "last_labels": state.last_labels | {example.device_id: example.label_sequence},
            }
        ),
        settings,
    )


def trimmed(state: LearningState, settings: LearnerSettings) -> LearningState:
    """Return the state with the last examples only, each image once, unless an adaptation needs them all."""
    if state.adaptation is not None:
        return state
    last_place = {example.image_id: place for place, example in sorted(state.examples.items())}
    kept = sorted(last_place.values())[-settings.memory :]
    if len(kept) == len(state.examples):
        return state
    return state.model_copy(update={"examples": {place: state.examples[place] for place in kept}})


def material(state: LearningState, adaptation: Adaptation) -> Material:
    """Return what an adaptation has to work with so far."""
    names = classes_of(adaptation.request, adaptation.base)
    request = adaptation.request
    log = [entry for entry in _in_order(state) if entry.example.class_name in names]
    return Material(
        old=tuple(
            entry.example
            for entry in log
            if entry.number < adaptation.opened_at
            and not is_new(request, entry.example)
            and not entry.example.held_back
        ),
        new=tuple(entry for entry in log if is_new(request, entry.example) and not entry.example.held_back),
        present=tuple(
            entry.example
            for entry in log
            if is_new(request, entry.example) or entry.example.device_id not in request.onset
        ),
    )


def is_new(request: AdaptationRequested, example: ExampleLabelled) -> bool:
    """Return whether an example was acquired after the change."""
    onset = request.onset.get(example.device_id)
    return onset is not None and example.image_sequence >= onset


def classes_of(request: AdaptationRequested, base: ReleaseChanged) -> tuple[str, ...]:
    """Return the candidate's class names: the base's, then those that have arrived."""
    if request.strategy is not Strategy.EXPAND_HEAD:
        return base.classes
    arrived = (name for _, name in sorted(request.new_classes.items()))
    return base.classes + tuple(name for name in arrived if name not in base.classes)


def class_indices(examples: Sequence[ExampleLabelled], classes: tuple[str, ...]) -> list[int]:
    """Return labels as positions in `classes`, by name, since a site may number its classes otherwise."""
    return [classes.index(example.class_name) for example in examples]


def _in_order(state: LearningState) -> Iterator[Numbered]:
    for place, example in sorted(state.examples.items()):
        yield Numbered(int(place), example)


def _place(number: int) -> str:
    return f"{number:012d}"
