"""Fine-tuning on a stream: one optimiser step a labelled mini-batch, and some more on what is remembered.

Nothing waits for a data set to be collected. Each mini-batch is trained on when it arrives; then a few
steps rehearse class-balanced batches of the new examples seen so far and of remembered old ones. What is
exported is the moving average of the weights, since single steps swing by several points of accuracy.

Under another scanner a step also shows old examples as that scanner would: their labels hold, and the base
model's answers to them as they were are what to answer now. A dozen images tell how. A scanner that has come
back is recognised: it is not learned anew, it keeps one share of the memory, and what it shows now is shown
as every other known scanner would, lest these wear off.

On slides, where a new laboratory has a few dozen labelled cells, steps may also show old cells in new
surroundings, and the head may be placed in closed form at the export.

`step` is pure: a state and a mini-batch to a state and metrics. What can't be learned from stops nothing:

- an image seen before is no second image: its label replaces the one it had, in either memory, from then on;
  the same label again changes nothing. An image that a full memory let go is new again;
- as long as all labels known are of one class nothing tells classes apart: images are kept, no step is taken;
- steps that end in no finite number are undone, and the mini-batch's new images are not kept, only counted.

Shape suffixes: B batch · H, W rows, columns · C channels · D embedding · N classes
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medloop_model.architecture import Architecture
from medloop_model.checkpoint import ModelPackage, load_teacher
from medloop_model.engine import Engine
from medloop_model.errors import ShapeError, TeacherMismatch
from medloop_model.network import BitLinear, BiTMedViT
from medloop_model.training.batch import Batch
from medloop_model.training.candidate import candidate
from medloop_model.training.export import export_package, network_from
from medloop_model.training.flat import flattened
from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD, freeze
from medloop_model.training.head import expand_head, imprint
from medloop_model.training.images import to_pixels, usual_bounds
from medloop_model.training.intake import Intake
from medloop_model.training.learner_state import LearnerState
from medloop_model.training.memory import Memory
from medloop_model.training.objective import Objective
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.policy import confirmed_classes
from medloop_model.training.quantizers import flipped_codes, ternary_codes
from medloop_model.training.recognition import recognised, returned
from medloop_model.training.showing import Showing, Shown, restyling
from medloop_model.training.workbench import Workbench


@dataclass(frozen=True)
class Metrics:
    """What one mini-batch did.

    Args:
        seen: new images so far.
        steps: optimiser steps so far.
        corrected: labels that took the place of another one so far.
        quarantined: new images so far whose steps were undone.
        loss: mean over this update's steps; not a number where none was taken, or where they were undone.
        flipped: share of ternary codes that differ from the base model's.
    """

    seen: int
    steps: int
    corrected: int
    quarantined: int
    loss: float
    flipped: float


class StreamingLearner:
    """Adapts one model to one drift; the same examples in the same order give the same bytes.

    A learner holds what doesn't change during an adaptation, and a bench to work on, which every step lays
    out anew: one learner steps from any state, but not from two threads at once.

    Args:
        package: the model to adapt, with its latent weights, and its Fisher information if the plan uses EWC.
        teacher_path: full-precision teacher, needed if the plan distils.
        plan: how.

    Raises:
        ShapeError: the plan's classes don't start with the model's, or the Fisher information is not whole,
            not finite, or has another model's names or shapes.
        TeacherMismatch: the teacher has other classes or takes other images.
        ValueError: an unknown strategy, no teacher or Fisher information where the plan needs it, or a memory
            of too few bytes for an image.
        CorruptCheckpoint, PickledCheckpoint: the teacher can't be read.
    """

    def __init__(self, package: ModelPackage, teacher_path: Path | None, plan: TrainingPlan) -> None:
        if plan.ewc_lambda and not package.fisher:
            raise ValueError("EWC needs Fisher information: load the package with its fisher part")
        if plan.alpha < 1 and teacher_path is None:
            raise ValueError("distillation needs a teacher: give its path, or set alpha to 1")
        torch.set_num_threads(plan.threads)
        self.plan = plan
        before = network_from(package)
        self._base = Engine(export_package(before, {}))
        network = expand_head(before, plan.classes)
        self._architecture = network.architecture
        self._showing = Showing(plan, usual_bounds(self._architecture))
        self._backbone_moves = plan.everything or plan.strategy != EXPAND_HEAD
        self._embeds_once = not (self._backbone_moves or plan.augmentation or plan.transplanted)
        self._anchor = {name: p.detach().clone() for name, p in network.named_parameters()}
        moving = freeze(network, DISTIL_ALL if plan.everything else plan.strategy)
        self._bench = Workbench(network, moving, plan)
        self._codes = self._codes_of(self._anchor)
        teacher = _teacher(teacher_path, self._architecture) if teacher_path and plan.alpha < 1 else None
        fisher = _expand_fisher(package, self._anchor)
        self._objective = Objective(plan, self._base, teacher, moving, self._anchor, fisher)
        self._intake = Intake(
            self._base,
            self._architecture,
            embeds=not self._backbone_moves,
            answers=plan.strategy == DISTIL_ALL or plan.restyled > 0,
        )
        self._memory_bytes = plan.memory_bytes // 2  # for old examples, and as many for new ones
        if self._memory_bytes < self._intake.nothing().example_bytes:
            raise ValueError(f"memory_bytes is {plan.memory_bytes}, too few for an image of each domain")

    def begin(self, old: Batch | None = None) -> LearnerState:
        """The state before the first mini-batch.

        Args:
            old: labelled examples of the old domain, to be rehearsed.

        Raises:
            ShapeError: images or labels don't fit the model.
        """
        nothing = self._intake.nothing()
        latent = flattened(self._anchor[name] for name in self._bench.moving)
        return LearnerState(
            latent=latent,
            average=latent.clone(),
            first=torch.zeros_like(latent),
            second=torch.zeros_like(latent),
            steps=0,
            seen=0,
            corrected=0,
            quarantined=0,
            imprinted=len(self._base.classes),
            generator=torch.Generator().manual_seed(self.plan.seed).get_state(),
            old=nothing if old is None else recognised(self._intake.examples(old)).within(self._memory_bytes),
            new=nothing,
        )

    def step(self, state: LearnerState, batch: Batch) -> tuple[LearnerState, Metrics]:
        """Learn from one mini-batch of the new domain.

        Raises:
            ShapeError: images or labels don't fit the model, or there are none.
        """
        told = self._intake.examples(batch)
        if not len(told):
            raise ShapeError("a mini-batch needs at least one labelled image")
        known = {**state.old.label_of, **state.new.label_of}
        fresh = {image_id for image_id in told.ids if image_id not in known}
        changed = {i for i, label in told.label_of.items() if known.get(i, label) != label}
        relabelled = replace(
            state,
            old=state.old.relabelled(told.label_of),
            new=state.new.relabelled(told.label_of),
            corrected=state.corrected + len(changed),
        )
        remembering = replace(
            relabelled,
            new=relabelled.new.joined(told.of(fresh)).within(self._memory_bytes),
            seen=state.seen + len(fresh),
        )
        self._bench.lay_out(state)
        remembering = self._with_new_rows(remembering)
        # A new label of an old image counts from its next rehearsal on: only new images are shown at once.
        shown = told.of(fresh | changed & state.new.label_of.keys())
        losses = self._losses(remembering, shown) if fresh or changed else []
        undone = not (all(map(math.isfinite, losses)) and self._bench.is_finite())
        if undone:
            learned = replace(relabelled, quarantined=state.quarantined + len(fresh))
        else:
            learned = self._bench.put_away(remembering)
        return learned, Metrics(
            seen=learned.seen,
            steps=learned.steps,
            corrected=learned.corrected,
            quarantined=learned.quarantined,
            loss=math.nan if undone or not losses else fmean(losses),
            flipped=flipped_codes(self._codes, self._codes_of(self._bench.by_name(learned.latent))),
        )

    @torch.no_grad()
    def logits(self, state: LearnerState, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A state's answers (B, N), by the averaged weights.

        Args:
            state: whose; it stays as it is.
            images: uint8 (B, H, W) or (B, H, W, C).

        Raises:
            ShapeError: images don't fit the model.
        """
        answers_BN: NDArray[np.float32] = self._averaged(state)(to_pixels(images, self._architecture)).numpy()
        return answers_BN

    def package(self, state: LearnerState) -> ModelPackage:
        """A state's model, packed, with its running Fisher information and no reference."""
        return candidate(self._averaged(state), state, self._showing, self._objective.fisher)

    def _averaged(self, state: LearnerState) -> BiTMedViT:
        network = BiTMedViT(self._architecture)
        share = self.plan.returning if len(self._returned(state)) else 1.0
        ends = self._bench.by_name(state.average)
        moved = {name: torch.lerp(self._anchor[name], end, share) for name, end in ends.items()}
        network.load_state_dict({**self._anchor, **moved})
        return network.eval()

    def _returned(self, state: LearnerState) -> Memory:
        """The new examples, if they come from a known scanner."""
        return returned(state.new, state.old) if self.plan.restyled else self._intake.nothing()

    def _losses(self, state: LearnerState, told: Memory) -> list[float]:
        """Take one mini-batch's steps, on a bench that is laid out, as far as their losses are finite."""
        losses: list[float] = []
        back, restyled = self._returned(state), None
        if self.plan.restyled and not len(back):
            restyled = restyling(state.old, state.new, self._base, self._bench.generator)
        for new, old in self._mini_batches(state, told, self.plan.first_steps if restyled else 0):
            shown = self._showing.of_step(
                new, old, state.new, self._bench.generator, returned=back, restyled=restyled
            )
            losses.append(self._descend(shown))
            if not math.isfinite(losses[-1]):
                break
        return losses

    def _mini_batches(
        self, state: LearnerState, shown: Memory, first_steps: int
    ) -> Iterator[tuple[Memory, Memory]]:
        """New examples of each step, and what to draw old ones from."""
        if len({*state.old.label_of.values(), *state.new.label_of.values()}) < 2:
            return
        old = self._trusted_old(state)
        if len(shown):
            yield shown, old
        for _ in range(self.plan.rehearsal_steps + (0 if state.steps else first_steps)):
            yield state.new.draw(self.plan.rehearsal_batch, self._bench.generator), old

    def _descend(self, shown: Shown) -> float:
        """One optimiser step on what is shown of new examples and of old ones."""
        network = self._bench.network
        embedded = self._embeds_once
        logits_BN = network.answer(shown.examples.embeddings) if embedded else network(shown.pixels)
        return self._bench.descend(self._objective.loss(logits_BN, shown))

    @torch.no_grad()
    def _with_new_rows(self, state: LearnerState) -> LearnerState:
        """Start the head's rows of new classes on the bench, as soon as each has an example."""
        started, known = state.imprinted, state.old.joined(state.new)
        while started < len(self.plan.classes) and (mine_B := known.labels == started).any():
            imprint(
                self._bench.network,
                started,
                mine_BD=self._embeddings(known.at(mine_B)),
                others_BD=self._embeddings(known.at(~mine_B)),
            )
            started += 1
        return replace(state, imprinted=started)

    def _trusted_old(self, state: LearnerState) -> Memory:
        """What to rehearse beside new examples: all old ones, or those whose labels a new policy confirms."""
        old, new = state.old, state.new
        if self.plan.strategy != DISTIL_ALL or not len(old):
            return old
        answers = (old.answers.argmax(dim=1), old.labels, new.answers.argmax(dim=1), new.labels)
        found_N = confirmed_classes(*answers, doubt=self.plan.doubt)
        confirmed_N = torch.ones(len(self.plan.classes), dtype=torch.bool)
        confirmed_N[: len(found_N)] = found_N
        # Every class keeps its share of a balanced batch, whichever domain it comes from.
        return old.at(confirmed_N[old.labels]).joined(new.at(~confirmed_N[new.labels]))

    def _embeddings(self, examples: Memory) -> Tensor:
        """Of the bench's network; those remembered where its backbone doesn't move (B, D)."""
        if not self._backbone_moves:
            return examples.embeddings
        return self._bench.network.embed(examples.pixels)

    def _codes_of(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The ternary codes of those among `weights` that have some and may move."""
        names = [
            f"{name}.weight"
            for name, module in self._bench.network.named_modules()
            if isinstance(module, BitLinear) and module.quantized
        ]
        return {name: ternary_codes(weights[name])[0] for name in names if name in self._bench.moving}


def _teacher(path: Path, student: Architecture) -> BiTMedViT:
    """The teacher, if it takes the student's images and has the student's classes, or the first of them."""
    package = load_teacher(path)
    found = package.architecture
    if (found.image_size, found.channels) != (student.image_size, student.channels):
        raise TeacherMismatch(path, f"takes images of {found.image_size} px, {found.channels} channels")
    if found.classes != student.classes[: len(found.classes)]:
        raise TeacherMismatch(path, f"has the classes {found.classes}, its student {student.classes}")
    return network_from(package)


def _expand_fisher(package: ModelPackage, anchor: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's Fisher information in the shape of the expanded network; new rows are free to move."""
    expanded = {}
    if package.fisher and (missing := anchor.keys() - package.fisher.keys()):
        raise ShapeError(f"the Fisher information of {min(missing)} is missing")
    for name, values in package.fisher.items():
        if not np.isfinite(values).all():
            raise ShapeError(f"the Fisher information of {name} holds a NaN or an infinity")
        if name not in anchor or values.shape != package.latent[name].shape:
            raise ShapeError(f"the Fisher information of {name} {values.shape} is of another model")
        expanded[name] = torch.zeros_like(anchor[name])
        known = tuple(slice(0, length) for length in values.shape)
        expanded[name][known] = torch.from_numpy(values.astype(np.float32))
    return expanded
