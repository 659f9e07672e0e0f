"""Pretraining at home: a full-precision teacher, then the ternary student that learns from it.

The student starts from the teacher's weights and is trained on labels and the teacher's logits together.
Everything counts steps and draws from seeded generators: the same images and settings give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medloop_model.accuracy import accuracy, balanced_accuracy
from medloop_model.architecture import Architecture
from medloop_model.checkpoint import ModelPackage
from medloop_model.network import BiTMedViT
from medloop_model.training.adam import AdamW
from medloop_model.training.distillation import FeatureProjection, distillation_loss
from medloop_model.training.ewc import fisher_diagonal, normalise_fisher
from medloop_model.training.export import export_package, export_teacher
from medloop_model.training.images import (
    PATIENT,
    Bounds,
    augment,
    draw_balanced,
    to_labels,
    to_pixels,
    usual_bounds,
)
from medloop_model.training.stage_checkpoint import StageCheckpoint

Images = NDArray[np.uint8]
Labels = NDArray[np.integer]
Progress = Callable[[str, int, int, float], None]
"""Called after every step with the stage's name, steps done, steps in all and the loss."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Scalar loss of pixels (B, H, W, C) and labels (B,), of the network that it was made for."""

STAGES = ("teacher", "student")
STAGE_SUFFIX = ".progress.safetensors"

RECIPE = 4
"""Raised when the same images and settings begin to make another package: caches of models go by it."""

SLIDE_STRENGTH = 0.5
"""Of the augmentation of slides, whose bounds are wide: at full strength a few hundred steps are too few."""


@dataclass(frozen=True)
class PretrainSettings:
    """How the teacher and the student are trained.

    Args:
        seed: of initial weights, batches and augmentation.
        teacher_steps, student_steps: optimiser steps.
        batch_size: images a step, drawn so that classes are balanced.
        teacher_learning_rate, student_learning_rate: peak rates of AdamW.
        teacher_weight_decay: of the teacher's matrices; the student has none, its weights being rounded.
        warm_up: share of the steps in which the rate rises from 0.
        alpha: weight of the labels beside the teacher's logits.
        temperature: T of the distillation.
        features: weight of the teacher's last tokens, which the student's are projected to in training.
        fisher_images: training images that the Fisher information is measured on.
        threads: of torch; another number may round differently.
    """

    seed: int = 0
    teacher_steps: int = 400
    student_steps: int = 500
    batch_size: int = 64
    teacher_learning_rate: float = 1e-3
    student_learning_rate: float = 1.5e-3
    teacher_weight_decay: float = 0.05
    warm_up: float = 0.08
    alpha: float = 0.5
    temperature: float = 2.0
    features: float = 0.0
    fisher_images: int = 256
    threads: int = 1


@dataclass(frozen=True)
class Pretrained:
    """What pretraining makes.

    Args:
        package: the ternary student with latent weights and Fisher information, without a reference.
        teacher: the full-precision teacher.
    """

    package: ModelPackage
    teacher: ModelPackage


def pretrain(
    train_images: Images,
    train_labels: Labels,
    validation_images: Images,
    validation_labels: Labels,
    architecture: Architecture,
    *,
    settings: PretrainSettings,
    progress: Progress | None = None,
    resume_in: Path | None = None,
) -> Pretrained:
    """Train a teacher and its student; their provenance holds settings and validation accuracy.

    Args:
        train_images: uint8 (n, H, W) or (n, H, W, C).
        train_labels: (n,) indices of architecture.classes.
        validation_images, validation_labels: only measured on.
        architecture: of the student; the teacher has the same in full precision.
        settings: how.
        progress: told about every step.
        resume_in: folder of `stage_files`, from which an interrupted run of the same images and settings goes
            on; removing them when all is stored is the caller's.

    Raises:
        ShapeError: images or labels don't fit the architecture.
        CorruptCheckpoint: a stage's file is damaged.
    """
    torch.set_num_threads(settings.threads)
    pixels = to_pixels(train_images, architecture)
    labels = to_labels(train_labels, architecture)
    report = progress or (lambda stage, step, steps, loss: None)
    bounds = usual_bounds(architecture)
    strength = SLIDE_STRENGTH if bounds.stained else 1.0
    checkpoints: dict[str, StageCheckpoint] = {}
    if resume_in is not None:
        identity = _identity(train_images, train_labels, architecture, settings)
        files = stage_files(resume_in)
        checkpoints = {
            stage: StageCheckpoint(file, identity) for stage, file in zip(STAGES, files, strict=True)
        }

    teacher = BiTMedViT(architecture.full_precision(), settings.seed)
    fit(
        teacher,
        [(pixels, labels)],
        label_loss(teacher),
        steps=settings.teacher_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.teacher_learning_rate,
        weight_decay=settings.teacher_weight_decay,
        warm_up=settings.warm_up,
        seed=settings.seed,
        augmentation=strength,
        bounds=bounds,
        after_step=lambda step, loss: report("teacher", step, settings.teacher_steps, loss),
        checkpoint=checkpoints.get("teacher"),
    )
    student = BiTMedViT(architecture)
    student.load_state_dict(teacher.state_dict())
    projection = FeatureProjection(architecture.width) if settings.features else None
    fit(
        nn.ModuleList([student] if projection is None else [student, projection]),
        [(pixels, labels)],
        _taught_by(teacher, student, projection, settings),
        steps=settings.student_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.student_learning_rate,
        weight_decay=0.0,
        warm_up=settings.warm_up,
        seed=settings.seed + 1,
        augmentation=strength,
        bounds=bounds,
        after_step=lambda step, loss: report("student", step, settings.student_steps, loss),
        checkpoint=checkpoints.get("student"),
    )
    generator = torch.Generator().manual_seed(settings.seed + 2)
    representative = torch.randperm(len(labels), generator=generator)[: settings.fisher_images]
    fisher = normalise_fisher(fisher_diagonal(student, pixels[representative], generator))

    def provenance(network: BiTMedViT) -> dict[str, object]:
        predicted = predict(network, validation_images).argmax(axis=1)
        truth = np.asarray(validation_labels).reshape(-1)
        return {
            "seed": settings.seed,
            "pretraining": asdict(settings),
            "recipe": RECIPE,
            "training_images": len(labels),
            "validation_accuracy": round(accuracy(predicted, truth), 4),
            "validation_balanced_accuracy": round(balanced_accuracy(predicted, truth), 4),
        }

    return Pretrained(
        package=export_package(
            student,
            provenance(student),
            fisher={name: tensor.numpy().astype(np.float16) for name, tensor in fisher.items()},
        ),
        teacher=export_teacher(teacher, provenance(teacher)),
    )


def stage_files(folder: Path) -> list[Path]:
    """The files that an interrupted run goes on from, one a stage."""
    return [folder / f"{stage}{STAGE_SUFFIX}" for stage in STAGES]


def _identity(images: Images, labels: Labels, architecture: Architecture, settings: PretrainSettings) -> str:
    """Digest of all that decides the bytes of what is trained."""
    how = {"architecture": architecture.to_json(), "settings": asdict(settings), "recipe": RECIPE}
    content = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
    for array in (images, labels):
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def fit(
    network: nn.Module,
    domains: Sequence[tuple[Tensor, Tensor]],
    loss_of: Loss,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warm_up: float,
    seed: int,
    augmentation: float = 1.0,
    bounds: Bounds = PATIENT,
    after_step: Callable[[int, float], None] | None = None,
    checkpoint: StageCheckpoint | None = None,
) -> None:
    """AdamW on class-balanced augmented batches under a warmed-up cosine rate; changes the network.

    Args:
        network: trained in place.
        domains: pixels (B, H, W, C), float32 in [0, 1], and labels (B,), int64; a batch has equal shares.
        loss_of: its loss.
        steps, batch_size, learning_rate, weight_decay, warm_up: as in `PretrainSettings`.
        seed: of batches and augmentation.
        augmentation, bounds: strength and extent of the augmentation.
        after_step: told the number of steps done and the loss.
        checkpoint: where to go on from, and to keep what was done.

    Raises:
        CorruptCheckpoint: the checkpoint's file is damaged.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = AdamW(network.parameters(), weight_decay)
    network.train()
    done = checkpoint.restore(optimiser, generator) if checkpoint else 0
    for step in range(done, steps):
        drawn = [_draw(*domain, batch_size // len(domains), generator) for domain in domains]
        pixels_BHWC, labels_B = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        loss = loss_of(augment(pixels_BHWC, generator, augmentation, bounds), labels_B)
        optimiser.zero_gradients()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step(learning_rate * warmed_up_cosine(step / steps, warm_up))
        if checkpoint:
            checkpoint.keep(optimiser, generator, done=step + 1, last=step + 1 == steps)
        if after_step:
            after_step(step + 1, loss.item())
    network.eval()


def label_loss(network: BiTMedViT) -> Loss:
    """Cross-entropy of the network's logits."""
    return lambda pixels_BHWC, labels_B: functional.cross_entropy(network(pixels_BHWC), labels_B)


def _draw(
    pixels_BHWC: Tensor, labels_B: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    batch = draw_balanced(labels_B, count, generator)
    return pixels_BHWC[batch], labels_B[batch]


def warmed_up_cosine(done: float, warm_up: float) -> float:
    """Share of the peak rate when a share `done` of the steps is over: a linear rise, then half a cosine."""
    rising = min(1.0, (done + 1e-3) / warm_up) if warm_up else 1.0
    return rising * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def predict(network: BiTMedViT, images: Images, batch_size: int = 128) -> NDArray[np.float32]:
    """Logits (n, classes) of images, without augmentation.

    Raises:
        ShapeError: images don't fit the network.
    """
    parts = [
        network(to_pixels(images[start : start + batch_size], network.architecture)).numpy()
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(network.architecture.classes)), np.float32)


def _taught_by(
    teacher: BiTMedViT, student: BiTMedViT, projection: FeatureProjection | None, settings: PretrainSettings
) -> Loss:
    def loss_of(pixels_BHWC: Tensor, labels_B: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_BTD = teacher.tokens(pixels_BHWC)
            teacher_BN = teacher.classify(teacher_BTD)
        student_BTD = student.tokens(pixels_BHWC)
        loss = distillation_loss(
            student.classify(student_BTD),
            teacher_BN,
            labels_B,
            alpha=settings.alpha,
            temperature=settings.temperature,
        )
        if projection is not None:
            loss = loss + settings.features * projection(student_BTD, teacher_BTD)
        return loss

    return loss_of
