"""`medloop pretrain`: teacher, ternary student, monitoring reference and provenance, as files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from medloop_model.architecture import Architecture, ward
from medloop_model.checkpoint import ModelPackage, save_package, save_teacher
from medloop_model.engine import Engine
from medloop_model.statistics import softmax
from medloop_model.statistics.reference import measure_reference
from medloop_model.training.export import network_from
from medloop_model.training.pretraining import PretrainSettings, predict, pretrain, stage_files

from medloop_services.replay.split import Split
from medloop_services.report.evaluation import Evaluation, evaluate, score
from medloop_services.ternary import Ternary

Progress = Callable[[str, int, int, float], None]

MODEL_FILE = "model.safetensors"
TEACHER_FILE = "teacher.safetensors"


@dataclass(frozen=True, slots=True)
class Home:
    """What a model is pretrained for.

    Attributes:
        data: the data set's name.
        digest: SHA-256 of the data.
        class_names: by class index.
        training: images to train on.
        validation: images that the monitoring reference is measured on.
        test: images that only report.
        ternary: which weights are.
    """

    data: str
    digest: str
    class_names: tuple[str, ...]
    training: Split
    validation: Split
    test: Split
    ternary: Ternary = Ternary.ATTENTION

    @property
    def architecture(self) -> Architecture:
        """The `ward` network for these images."""
        images = self.training.images
        architecture = ward(int(images.shape[1]), 1 if images.ndim == 3 else 3, self.class_names)
        if self.ternary is Ternary.ALL:
            return architecture.all_ternary()
        return replace(architecture, ternary_attention=self.ternary is Ternary.ATTENTION)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model package, its teacher, and how right both are on the test images."""

    model: Path
    teacher: Path
    student_test: Evaluation
    teacher_test: Evaluation


def pretrain_model(
    home: Home,
    folder: Path,
    *,
    name: str,
    settings: PretrainSettings,
    command: str,
    progress: Progress | None = None,
) -> ModelFiles:
    """Train a model for its home and write `model.safetensors` and `teacher.safetensors` into a folder.

    The same home and settings give the same bytes on the same processor type, interrupted or not: what was
    done lies in the folder until both files do.

    Args:
        home: images and where they are from.
        folder: made where it is missing.
        name: the first part of the model's version.
        settings: how.
        command: the command line that makes these files again.
        progress: told about every step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = pretrain(
        home.training.images,
        home.training.labels,
        home.validation.images,
        home.validation.labels,
        home.architecture,
        settings=settings,
        progress=progress,
        resume_in=folder,
    )
    engine = Engine(trained.package)
    student_test = evaluate(engine, home.test.images, home.test.labels, home.class_names)
    origin = {
        "name": name,
        "command": command,
        "data": home.data,
        "data_sha256": home.digest,
        "training_sha256": training_digest(home.training),
        "split": "70 % of train is trained on; the other 30 % only streams",
    }
    reference = measure_reference(engine, home.validation.images, home.validation.labels, settings.seed)
    package = replace(
        trained.package,
        reference=reference.to_tensors(),
        provenance={**trained.package.provenance, **origin, **_tested(student_test)},
    )
    teacher_test = _teacher_test(trained.teacher, home)
    teacher = replace(
        trained.teacher, provenance={**trained.teacher.provenance, **origin, **_tested(teacher_test)}
    )
    save_package(package, folder / MODEL_FILE)
    save_teacher(teacher, folder / TEACHER_FILE)
    for file in stage_files(folder):
        file.unlink(missing_ok=True)
    return ModelFiles(folder / MODEL_FILE, folder / TEACHER_FILE, student_test, teacher_test)


def training_digest(training: Split) -> str:
    """Return the SHA-256 of the images and labels that a model was trained on, in their order."""
    content = hashlib.sha256(np.ascontiguousarray(training.images).tobytes())
    content.update(training.labels.astype("<i8").tobytes())
    return content.hexdigest()


def _tested(test: Evaluation) -> dict[str, float]:
    return {
        "test_accuracy": round(test.accuracy.value, 4),
        "test_balanced_accuracy": round(test.balanced_accuracy.value, 4),
    }


def _teacher_test(teacher: ModelPackage, home: Home) -> Evaluation:
    logits = predict(network_from(teacher), home.test.images)
    return score(softmax(logits), home.test.labels, home.class_names)
