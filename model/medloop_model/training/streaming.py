"""Fine-tuning on a stream: one optimiser step a labelled mini-batch, and some more on what is remembered.

Nothing waits for a data set to be collected. Each mini-batch is trained on when it arrives; then a few
steps rehearse class-balanced batches of the new examples seen so far and of remembered old ones. What is
exported is the moving average of the weights, since single steps swing by several points of accuracy.

Under another scanner a step also shows old examples as that scanner would: their labels hold, and the base
model's answers to them as they were are what to answer now. A dozen images tell how.

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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medloop_model.architecture import Architecture
from medloop_model.checkpoint import ModelPackage, Tensors, load_teacher
from medloop_model.errors import ShapeError, TeacherMismatch
from medloop_model.network import BitLinear, BiTMedViT
from medloop_model.training.batch import Batch
from medloop_model.training.discriminant import place_head
from medloop_model.training.ewc import fisher_diagonal, merge_fisher, normalise_fisher
from medloop_model.training.export import export_package, network_from
from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD, freeze
from medloop_model.training.head import expand_head, imprint
from medloop_model.training.images import augment, to_labels, to_pixels, usual_bounds
from medloop_model.training.learner_state import LearnerState
from medloop_model.training.memory import Memory
from medloop_model.training.objective import Objective
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.policy import confirmed_classes
from medloop_model.training.quantizers import flipped_codes
from medloop_model.training.restyle import AcquisitionChange, is_faithful
from medloop_model.training.transplant import transplant
from medloop_model.training.workbench import Workbench

_EMBEDDED_AT_ONCE = 64
_COMPARED = 128  # images of each domain that tell how a scanner has changed


@dataclass(frozen=True)
class Metrics:
    """What one mini-batch did.

    Args:
        seen: new images so far.
        steps: optimiser steps so far.
        corrected: labels that took the place of another one so far.
        quarantined: new images so far whose steps were undone.
        loss: mean over this update's steps; not a number where none was taken, or where they were undone.
        accuracy: on the mini-batch before it was trained on.
        flipped: share of ternary codes that differ from the base model's.
    """

    seen: int
    steps: int
    corrected: int
    quarantined: int
    loss: float
    accuracy: float
    flipped: float


@dataclass(frozen=True)
class Restyling:
    """Old examples of one domain, and how the new scanner would show them."""

    examples: Memory
    change: AcquisitionChange


class StreamingLearner:
    """Adapts one model to one drift; the same examples in the same order give the same bytes.

    A learner holds what doesn't change during an adaptation, and a bench to work on, which every step lays
    out anew: one learner steps from any state, but not from two threads at once.

    Args:
        package: the model to adapt, with its latent weights, and its Fisher information if the plan uses EWC.
        teacher_path: full-precision teacher, needed if the plan distils.
        plan: how.

    Raises:
        ShapeError: the plan's classes don't start with the model's, or the Fisher information has another
            model's names or shapes.
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
        self._base = network_from(package)
        network = expand_head(self._base, plan.classes)
        self._architecture = network.architecture
        self._bounds = usual_bounds(self._architecture)
        self._backbone_moves = plan.everything or plan.strategy != EXPAND_HEAD
        self._embeds_once = not (self._backbone_moves or plan.augmentation or plan.transplanted)
        self._anchor = {name: p.detach().clone() for name, p in network.named_parameters()}
        self._fisher = _expand_fisher(package, self._anchor)
        moving = freeze(network, DISTIL_ALL if plan.everything else plan.strategy)
        self._bench = Workbench(network, moving, plan)
        teacher = _teacher(teacher_path, self._architecture) if teacher_path and plan.alpha < 1 else None
        self._objective = Objective(plan, self._base, teacher, moving, self._anchor, self._fisher)
        self._memory_bytes = plan.memory_bytes // 2  # for old examples, and as many for new ones
        if self._memory_bytes < self._nothing().example_bytes:
            raise ValueError(f"memory_bytes is {plan.memory_bytes}, too few for an image of each domain")

    def begin(self, old: Batch | None = None) -> LearnerState:
        """The state before the first mini-batch.

        Args:
            old: labelled examples of the old domain, to be rehearsed.

        Raises:
            ShapeError: images or labels don't fit the model.
        """
        latent = {name: self._anchor[name] for name in self._bench.moving}
        return LearnerState(
            latent=latent,
            average={name: tensor.clone() for name, tensor in latent.items()},
            first={name: torch.zeros_like(tensor) for name, tensor in latent.items()},
            second={name: torch.zeros_like(tensor) for name, tensor in latent.items()},
            steps=0,
            seen=0,
            corrected=0,
            quarantined=0,
            imprinted=len(self._base.architecture.classes),
            generator=torch.Generator().manual_seed(self.plan.seed).get_state(),
            old=(self._nothing() if old is None else self._examples(old)).within(self._memory_bytes),
            new=self._nothing(),
        )

    def step(self, state: LearnerState, batch: Batch) -> tuple[LearnerState, Metrics]:
        """Learn from one mini-batch of the new domain.

        Raises:
            ShapeError: images or labels don't fit the model, or there are none.
        """
        told = self._examples(batch)
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
        accuracy = self._accuracy(told)
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
            accuracy=accuracy,
            flipped=flipped_codes(self._ternary(self._anchor), self._ternary(learned.latent)),
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
        network = self._averaged(state)
        if self.plan.discriminant_images:
            self._place_head(network, state)
        provenance = {
            "plan": asdict(self.plan),
            "new_examples": state.seen,
            "labels_corrected": state.corrected,
            "quarantined": state.quarantined,
            "steps": state.steps,
        }
        return export_package(network, provenance, fisher=self._running_fisher(network, state))

    def _averaged(self, state: LearnerState) -> BiTMedViT:
        network = BiTMedViT(self._architecture)
        network.load_state_dict({**self._anchor, **state.average})
        return network.eval()

    def _losses(self, state: LearnerState, shown: Memory) -> list[float]:
        """Take one mini-batch's steps, on a bench that is laid out, as far as their losses are finite."""
        losses: list[float] = []
        restyling = self._restyling(state) if self.plan.restyled else None
        for new, old in self._mini_batches(state, shown, self.plan.first_steps if restyling else 0):
            losses.append(self._descend(new, old, state.new, restyling))
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

    def _descend(self, new: Memory, old: Memory, surroundings: Memory, restyling: Restyling | None) -> float:
        """One optimiser step on new examples, and on old ones as they were, restyled and transplanted."""
        generator = self._bench.generator
        shown = new.joined(old.draw(self.plan.rehearsal_batch, generator))
        if restyling:
            shown = shown.joined(restyling.examples.draw(self.plan.restyled, generator))
        rehearsed = slice(len(new), len(shown))
        pixels_BHWC, labels_B = shown.pixels, shown.labels
        if self.plan.transplanted:
            count = self.plan.transplanted
            cells_BHWC, cell_labels_B = self._transplanted(old, surroundings, count, generator)
            pixels_BHWC = torch.cat([pixels_BHWC, cells_BHWC])
            labels_B = torch.cat([labels_B, cell_labels_B])
        pixels_BHWC = self._varied(pixels_BHWC, generator)
        remembered_BHWC = pixels_BHWC[rehearsed]
        if restyling:
            last = slice(len(shown) - self.plan.restyled, len(shown))
            pixels_BHWC = pixels_BHWC.clone()
            pixels_BHWC[last] = restyling.change.applied(pixels_BHWC[last], generator)
        network = self._bench.network
        logits_BN = network.answer(shown.embeddings) if self._embeds_once else network(pixels_BHWC)
        return self._bench.descend(
            self._objective.loss(logits_BN, pixels_BHWC, labels_B, rehearsed, remembered_BHWC)
        )

    @torch.no_grad()
    def _restyling(self, state: LearnerState) -> Restyling | None:
        """How new images differ from those before them; None if not as scanners differ."""
        latest = state.old.latest_domain()
        in_both = torch.tensor(sorted({*latest.labels.tolist()} & {*state.new.labels.tolist()}))
        if not len(in_both):
            return None
        old, new = (
            memory.at(torch.isin(memory.labels, in_both)).draw(_COMPARED, self._bench.generator)
            for memory in (latest, state.new)
        )
        change = AcquisitionChange.between(old.pixels, new.pixels)
        shown_BHWC = change.applied(old.pixels, self._bench.generator)
        faithful = is_faithful(self._base(shown_BHWC), old.labels, new.answers, new.labels)
        return Restyling(latest, change) if faithful else None

    def _transplanted(
        self, old: Memory, surroundings: Memory, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        cells = old.draw(count, generator)
        return transplant(cells.pixels, surroundings.pixels, generator), cells.labels

    def _varied(self, pixels_BHWC: Tensor, generator: torch.Generator) -> Tensor:
        if not self.plan.augmentation:
            return pixels_BHWC
        return augment(pixels_BHWC, generator, self.plan.augmentation, self._bounds)

    @torch.no_grad()
    def _accuracy(self, told: Memory) -> float:
        logits_BN = self._bench.network.answer(self._embeddings(told))
        return float((logits_BN.argmax(dim=1) == told.labels).float().mean())

    @torch.no_grad()
    def _with_new_rows(self, state: LearnerState) -> LearnerState:
        """Start the head's rows of new classes on the bench, as soon as each has an example."""
        started = state.imprinted
        while started < len(self.plan.classes) and (mine_B := state.new.labels == started).any():
            others = state.old.joined(state.new.at(~mine_B))
            imprint(
                self._bench.network,
                started,
                mine_BD=self._embeddings(state.new.at(mine_B)),
                others_BD=self._embeddings(others),
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

    def _examples(self, batch: Batch) -> Memory:
        """A batch's images, each once with its last label, and what is asked of each image only once."""
        pixels_BHWC = to_pixels(batch.images, self._architecture)
        labels_B = to_labels(batch.labels, self._architecture)
        embeddings_BD, answers_BN = self._recalled(pixels_BHWC)
        last = {image_id: place for place, image_id in enumerate(batch.ids)}
        return Memory(
            ids=batch.ids,
            domains=batch.domains or ("",) * len(batch),
            images=torch.from_numpy(batch.images).view_as(pixels_BHWC),
            labels=labels_B,
            answers=answers_BN,
            embeddings=embeddings_BD,
        ).at(torch.tensor(sorted(last.values()), dtype=torch.int64))

    @torch.no_grad()
    def _recalled(self, pixels_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of a backbone that stays, and the base's answers where something is judged by them."""
        unasked = pixels_BHWC.new_zeros(len(pixels_BHWC), 0)
        parts = torch.split(pixels_BHWC, _EMBEDDED_AT_ONCE)
        if not self._backbone_moves:
            return torch.cat([self._base.embed(part) for part in parts]), unasked
        if self.plan.strategy == DISTIL_ALL or self.plan.restyled:
            return unasked, torch.cat([self._base(part) for part in parts])
        return unasked, unasked

    def _embeddings(self, examples: Memory) -> Tensor:
        """Of the bench's network; those remembered where its backbone doesn't move (B, D)."""
        if not self._backbone_moves:
            return examples.embeddings
        return self._bench.network.embed(examples.pixels)

    def _nothing(self) -> Memory:
        side, channels = self._architecture.image_size, self._architecture.channels
        return self._examples(Batch(np.zeros((0, side, side, channels), np.uint8), np.zeros(0, np.int64), ()))

    def _place_head(self, network: BiTMedViT, state: LearnerState) -> None:
        """Fit the head to augmented examples of both domains, and of old cells in new surroundings."""
        count = self.plan.discriminant_images
        generator = torch.Generator().manual_seed(self.plan.seed)  # its own, so that exporting draws nothing
        drawn = [memory.draw(count, generator) for memory in (state.old, state.new) if len(memory)]
        domains = [(examples.pixels, examples.labels) for examples in drawn]
        if self.plan.transplanted and len(state.old) and len(state.new):
            domains.append(self._transplanted(state.old, state.new, count, generator))
        varied = [(self._varied(pixels_BHWC, generator), labels_B) for pixels_BHWC, labels_B in domains]
        if varied:
            place_head(network, varied, self.plan.shrinkage)

    def _running_fisher(self, network: BiTMedViT, state: LearnerState) -> Tensors:
        """Online EWC: what mattered so far and what matters on the new domain."""
        generator = torch.Generator().manual_seed(self.plan.seed)  # its own, so that exporting draws nothing
        drawn = state.new.draw(self.plan.fisher_images, generator)
        recent = normalise_fisher(fisher_diagonal(network, drawn.pixels, generator))
        merged = merge_fisher(self._fisher, recent, self.plan.fisher_decay) if self._fisher else recent
        return {name: fisher.numpy().astype(np.float16) for name, fisher in merged.items()}

    def _ternary(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The latent weights among `weights` that are rounded to ternary codes and may move."""
        names = [
            f"{name}.weight"
            for name, module in self._bench.network.named_modules()
            if isinstance(module, BitLinear) and module.quantized
        ]
        return {name: weights[name] for name in names if name in self._bench.moving}


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
    for name, values in package.fisher.items():
        if name not in anchor or values.shape != package.latent[name].shape:
            raise ShapeError(f"the Fisher information of {name} {values.shape} is of another model")
        expanded[name] = torch.zeros_like(anchor[name])
        known = tuple(slice(0, length) for length in values.shape)
        expanded[name][known] = torch.from_numpy(values.astype(np.float32))
    return expanded
