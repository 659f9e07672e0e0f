"""The trainer on torch. A learner in memory is a cache: when its adaptation's state says something else than
what it has done, it is opened anew and taught the same mini-batches again, which gives the same bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from medloop_model.checkpoint import ModelPackage, load_package, load_teacher, save_package
from medloop_model.engine import Engine
from medloop_model.errors import ModelError
from medloop_model.fisher_file import load_fisher
from medloop_model.statistics import measure_reference
from medloop_model.training.images import usual_bounds
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.streaming import Metrics, StreamingLearner
from medloop_schemas import ExampleLabelled, InvalidEvent
from numpy.typing import NDArray

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.frames import pixels_of
from medloop_services.online_learner.examples import Material, class_indices, classes_of
from medloop_services.online_learner.learning import Trained, Update
from medloop_services.online_learner.settings import LearnerSettings
from medloop_services.online_learner.state import Adaptation

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]

DIGEST_DIGITS = 12
"""Of a package's SHA-256, in its version."""


class Learner(Protocol):
    """Learns from mini-batches; `StreamingLearner` is one."""

    def remember(self, images: NDArray[np.uint8], labels: NDArray[np.integer]) -> None:
        """Keep old examples for rehearsal."""

    def update(self, images: NDArray[np.uint8], labels: NDArray[np.integer]) -> Metrics:
        """Train on one mini-batch."""

    def package(self) -> ModelPackage:
        """Return the model as it is now."""


@dataclass(slots=True)
class Progress:
    """A learner and what it has been taught: so many new examples of one request."""

    request_id: str
    learner: Learner
    trained: int = 0


@dataclass(frozen=True, slots=True)
class StreamingTrainer:
    """Trains with streaming learners, one a site.

    Attributes:
        artifacts: where base models come from and candidates go.
        settings: mini-batch size and seed.
        open_learner: makes an adaptation's learner; by default `open_streaming_learner`.
    """

    artifacts: ArtifactStore
    settings: LearnerSettings
    open_learner: Callable[[ArtifactStore, LearnerSettings, Adaptation], Learner]
    _sites: dict[str, Progress] = field(default_factory=dict)

    def check(self, example: ExampleLabelled) -> None:
        """Raise InvalidEvent if the example's pixels can't be read, TransientError if not now."""
        pixels_of(example.frame, self.artifacts)

    def open(self, adaptation: Adaptation, examples: Material) -> None:
        """Raise InvalidEvent if the base model is broken, TransientError if it can't be fetched now."""
        self._progress(adaptation, examples)

    def update(self, adaptation: Adaptation, examples: Material) -> Update:
        """Train on the mini-batch that comes after `adaptation.trained` new examples."""
        progress = self._progress(adaptation, examples)
        metrics = self._teach(progress, adaptation, examples)
        return Update(loss=metrics.loss, steps=metrics.steps, changed_codes=metrics.flipped)

    def finish(self, adaptation: Adaptation, examples: Material) -> Trained:
        """Store the model as it is after `adaptation.trained` new examples, with its monitoring reference."""
        package = self._progress(adaptation, examples).learner.package()
        images, labels = self._arrays(examples.present, adaptation)
        studies = np.unique([example.study_id for example in examples.present], return_inverse=True)[1]
        reference = measure_reference(Engine(package), images, labels, self.settings.seed, studies)
        package = replace(
            package,
            reference=reference.to_tensors(),
            provenance=dict(package.provenance) | _lineage(adaptation),
        )
        with tempfile.TemporaryDirectory(prefix="medloop-candidate-") as folder:
            path = Path(folder) / "model.safetensors"
            digest = save_package(package, path)
            stored = self.artifacts.put(path)
        family = adaptation.base.version.rsplit("-", 1)[0]
        return Trained(version=f"{family}-{digest[:DIGEST_DIGITS]}", package=stored)

    def _progress(self, adaptation: Adaptation, examples: Material) -> Progress:
        """Return the site's learner, taught exactly what the state says."""
        request = adaptation.request
        progress = self._sites.get(request.site_id)
        if (
            progress is not None
            and progress.request_id == request.event_id
            and progress.trained == adaptation.trained
        ):
            return progress
        try:
            learner = self.open_learner(self.artifacts, self.settings, adaptation)
        except ModelError as error:
            raise InvalidEvent(error.code, "base_version", str(error)) from error
        if examples.old:
            learner.remember(*self._arrays(examples.old, adaptation))
        progress = Progress(request.event_id, learner)
        while progress.trained < adaptation.trained:
            self._teach(progress, adaptation, examples)
        self._sites[request.site_id] = progress
        return progress

    def _teach(self, progress: Progress, adaptation: Adaptation, examples: Material) -> Metrics:
        through = progress.trained + self.settings.batch_size
        batch = [entry.example for entry in examples.new[progress.trained : through]]
        metrics = progress.learner.update(*self._arrays(batch, adaptation))
        progress.trained = through
        return metrics

    def _arrays(self, examples: Sequence[ExampleLabelled], adaptation: Adaptation) -> Labelled:
        images = np.stack([pixels_of(example.frame, self.artifacts) for example in examples])
        classes = classes_of(adaptation.request, adaptation.base)
        return images, np.array(class_indices(examples, classes), np.int64)


def open_streaming_learner(
    artifacts: ArtifactStore, settings: LearnerSettings, adaptation: Adaptation
) -> StreamingLearner:
    """Return the learner that an adaptation starts with.

    Raises:
        CorruptArtifact, ModelError: the base model or its teacher is broken.
        TransientError: their store is away.
    """
    base = adaptation.base
    package = load_package(artifacts.fetch(base.package), parts=("latent", "fisher"))
    classes = classes_of(adaptation.request, base)
    slides = usual_bounds(package.architecture).stained
    plan = TrainingPlan.for_strategy(adaptation.request.strategy.value, classes, settings.seed, slides=slides)
    if adaptation.fisher is not None:
        fisher = load_fisher(artifacts.fetch(adaptation.fisher), package, base.package.sha256)
        package = replace(package, fisher=fisher)
    if not package.fisher:
        plan = replace(plan, ewc_lambda=0.0)
    teacher = None if base.teacher is None else artifacts.fetch(base.teacher)
    if teacher is None or load_teacher(teacher).architecture.classes != classes:
        # A teacher that does not know all classes can't say how likely they are.
        plan, teacher = replace(plan, alpha=1.0), None
    return StreamingLearner(package, teacher, plan)


def _lineage(adaptation: Adaptation) -> dict[str, str | int | None]:
    return {
        "base_version": adaptation.base.version,
        "request_id": adaptation.request.event_id,
        "diagnosis": adaptation.request.diagnosis.value,
        "attempt": adaptation.attempt,
        "fisher_sha256": None if adaptation.fisher is None else adaptation.fisher.sha256,
        "labels_used": adaptation.trained,
    }
