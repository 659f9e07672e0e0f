"""The example log of a site: what arrived, in order, and which of it an adaptation may use, and for what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medloop_model.training.eviction import kept
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
        domains: what each old example comes from: how many changes were before it.
        new: from after the change; trained on. A label corrected after it was trained on comes once more.
        corrected: labels of old images that were corrected after the request.
        present: what devices send now, for the reference that travels with the candidate; never trained on
            for being in here.
    """

    old: tuple[ExampleLabelled, ...]
    domains: tuple[str, ...]
    new: tuple[Numbered, ...]
    corrected: tuple[Numbered, ...]
    present: tuple[ExampleLabelled, ...]

    def mini_batch(self, trained: int, size: int) -> list[ExampleLabelled]:
        """Return the `size` new examples after the first `trained`, and the corrections that came by then.

        In order of arrival, so that of two labels of one image the later one counts.
        """
        taken = self.new[trained : trained + size]
        after = self.new[trained - 1].number if trained else -1
        corrections = [entry for entry in self.corrected if after < entry.number < taken[-1].number]
        in_order = sorted([*taken, *corrections], key=lambda entry: entry.number)
        return [entry.example for entry in in_order]


def taken_in(state: LearningState, example: ExampleLabelled, settings: LearnerSettings) -> LearningState:
    """Return the state with one more example; a repeat changes nothing, a corrected label takes its place."""
    if example.label_sequence <= state.last_labels.get(example.device_id, -1):
        return state
    examples = dict(state.examples)
    fixed_below = 0 if state.adaptation is None else state.adaptation.fixed_below
    for place, earlier in state.examples.items():
        if earlier.image_id == example.image_id and int(place) >= fixed_below:
            del examples[place]
    if state.adaptation is not None and len(examples) >= settings.open_memory:
        examples = _without_a_bystander(examples, state.adaptation)
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


def _without_a_bystander(
    examples: dict[str, ExampleLabelled], adaptation: Adaptation
) -> dict[str, ExampleLabelled]:
    """Return a full log without its oldest example that nothing is trained on, if there is one.

    Examples of devices that did not change would fill it otherwise, and the adaptation never be ready.
    """
    old = {example.image_id for place, example in examples.items() if int(place) < adaptation.opened_at}
    bystanders = [
        place
        for place, example in examples.items()
        if int(place) >= adaptation.opened_at
        and not is_new(adaptation.request, example)
        and example.image_id not in old
    ]
    oldest = min(bystanders, default=None)
    return {place: example for place, example in examples.items() if place != oldest}


def trimmed(state: LearningState, settings: LearnerSettings) -> LearningState:
    """Return the state with no more than `memory` examples, each image once, unless an adaptation needs all.

    Half of the room is for the last examples, of which the next change may be. The other half is shared by
    the domains seen so far, and within a domain by its classes, so that many drifts in a row wear none away.
    A hash of the image chooses within a class: an even sample of a domain's time, whenever it is taken.
    """
    if state.adaptation is not None:
        return state
    last_place = {example.image_id: place for place, example in sorted(state.examples.items())}
    places = sorted(last_place.values())
    if len(places) > settings.memory:
        latest = places[-(settings.memory // 2) :]
        earlier = sorted(places[: -len(latest)], key=lambda place: _priority(state.examples[place]))
        domains = [domain_of(state, state.examples[place]) for place in earlier]
        classes = [state.examples[place].class_name for place in earlier]
        shares = kept(domains, classes, settings.memory - len(latest))
        places = sorted([*(earlier[share] for share in shares), *latest])
    if len(places) == len(state.examples):
        return state
    return state.model_copy(update={"examples": {place: state.examples[place] for place in places}})


def domain_of(state: LearningState, example: ExampleLabelled) -> str:
    """Return how many of the changes that were adapted to lie before an example (the last one's number)."""
    passed = [
        number
        for number, onset in enumerate(state.onsets, start=1)
        if example.image_sequence >= onset.get(example.device_id, example.image_sequence + 1)
    ]
    return f"{max(passed, default=0):03d}"


def _priority(example: ExampleLabelled) -> str:
    return hashlib.sha256(example.image_id.encode()).hexdigest()


def material(state: LearningState, adaptation: Adaptation) -> Material:
    """Return what an adaptation has to work with so far."""
    names = classes_of(adaptation.request, adaptation.base)
    request = adaptation.request
    log = [entry for entry in _in_order(state) if entry.example.class_name in names]
    trainable = [entry for entry in log if not entry.example.held_back]
    before = [entry for entry in trainable if not is_new(request, entry.example)]
    old = tuple(entry.example for entry in before if entry.number < adaptation.opened_at)
    rehearsed = {example.image_id for example in old}
    return Material(
        old=old,
        domains=tuple(domain_of(state, example) for example in old),
        new=tuple(entry for entry in trainable if is_new(request, entry.example)),
        corrected=tuple(
            entry
            for entry in before
            if entry.number >= adaptation.opened_at and entry.example.image_id in rehearsed
        ),
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
