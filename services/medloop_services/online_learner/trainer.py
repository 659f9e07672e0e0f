"""The trainer on torch. A learner in memory is a cache: when its adaptation's state says something else than
what it has done, it goes on from a checkpoint, or from the beginning, and is taught the same mini-batches
again, which gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
from medloop_model.checkpoint import ModelPackage, load_package, save_package
from medloop_model.engine import Engine
from medloop_model.errors import ModelError
from medloop_model.fisher_file import load_fisher
from medloop_model.statistics import measure_reference
from medloop_model.training.batch import Batch
from medloop_model.training.learner_state import LearnerState
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.reason import Reason, told
from medloop_model.training.selector import Bounds, Cause, Labels, ModelFacts, choose
from medloop_model.training.streaming import Metrics, StreamingLearner
from medloop_schemas import ExampleLabelled, InvalidEvent, RoundClosed, UpdateSubmitted
from numpy.typing import NDArray

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.frames import pixels_of, pixels_on_arrival
from medloop_services.online_learner.checkpoints import Checkpoints
from medloop_services.online_learner.examples import Material, class_indices, classes_of
from medloop_services.online_learner.learning import Trained, Update
from medloop_services.online_learner.membership import Membership
from medloop_services.online_learner.settings import LearnerSettings
from medloop_services.online_learner.state import Adaptation
from medloop_services.participation import Adapted

log = structlog.get_logger()

DIGEST_DIGITS = 12
"""Of a package's SHA-256, in its version."""
SOFTWARE = tuple(f"{name} {version(name)}" for name in ("medloop-model", "torch"))
"""What rounds: a learner of another one is not gone on from."""


class Learner(Protocol):
    """Learns from mini-batches; `StreamingLearner` is one."""

    plan: TrainingPlan

    def begin(self, old: Batch | None = None) -> LearnerState:
        """Return the state before the first mini-batch, with old examples for rehearsal."""

    def step(self, state: LearnerState, batch: Batch) -> tuple[LearnerState, Metrics]:
        """Train on one mini-batch."""

    def package(self, state: LearnerState) -> ModelPackage:
        """Return a state's model."""


@dataclass(slots=True)
class Progress:
    """A learner and where it stands: taught so many new examples of one request.

    Attributes:
        request_id: what it answers.
        learner, why: it, and why its plan is what it is.
        state: where it stands.
        trained: new examples taught.
    """

    request_id: str
    learner: Learner
    why: tuple[Reason, ...]
    state: LearnerState
    trained: int = 0


@dataclass(frozen=True, slots=True)
class StreamingTrainer:
    """Trains with streaming learners, one a site.

    Attributes:
        artifacts: where base models come from and candidates go.
        settings: mini-batch size, seed, and updates between checkpoints.
        checkpoints: where learners are kept.
        open_learner: makes an adaptation's learner and says why so; by default `open_streaming_learner`.
        part_of: a site's part in the federation; None where there is none.
    """

    artifacts: ArtifactStore
    settings: LearnerSettings
    checkpoints: Checkpoints
    open_learner: Callable[[ArtifactStore, LearnerSettings, Adaptation], tuple[Learner, tuple[Reason, ...]]]
    part_of: Membership | None = None
    _sites: dict[str, Progress] = field(default_factory=dict)

    def check(self, example: ExampleLabelled) -> None:
        """Raise InvalidEvent if the example's pixels can't be read, TransientError if not now."""
        pixels_on_arrival(example.frame, self.artifacts)

    def open(self, adaptation: Adaptation, examples: Material) -> None:
        """Raise InvalidEvent if the base model is broken, TransientError if it can't be fetched now."""
        self._progress(adaptation, examples)

    def update(self, adaptation: Adaptation, examples: Material) -> Update:
        """Train on the mini-batch that comes after `adaptation.trained` new examples."""
        progress = self._progress(adaptation, examples)
        metrics = self._teach(progress, adaptation, examples)
        self._keep(progress, adaptation, examples)
        return Update(
            loss=metrics.loss,
            steps=metrics.steps,
            changed_codes=metrics.flipped,
            corrected=metrics.corrected,
            quarantined=metrics.quarantined,
        )

    def finish(self, adaptation: Adaptation, examples: Material) -> Trained:
        """Store the model as it is after `adaptation.trained` new examples, with its monitoring reference."""
        return self._stored(self._package(adaptation, examples), adaptation, examples)

    def submit(self, adaptation: Adaptation, examples: Material, now: datetime) -> UpdateSubmitted | None:
        """Store and sign the update of what was trained, or return None where there is no federation.

        Raises:
            InvalidEvent: the sites' models can't be merged, as when this one knows a new class.
            TransientError: the store is away.
        """
        if self.part_of is None:
            return None
        request, base = adaptation.request, adaptation.base
        adapted = Adapted(
            base=load_package(self.artifacts.fetch(base.package), parts=("latent", "fisher")),
            trained=self._package(adaptation, examples),
            base_version=base.version,
            request_id=request.event_id,
            attempt=adaptation.attempt,
            samples=adaptation.labels_used,
        )
        try:
            update, _ = self.part_of(request.site_id).submit(adapted, now)
        except ModelError as error:
            raise InvalidEvent(error.code, "federation", str(error)) from error
        return update

    def take_up(self, adaptation: Adaptation, examples: Material, closed: RoundClosed) -> Trained:
        """Store the round's merged model with the site's own norms and scales, and a reference of its own.

        Raises:
            InvalidEvent: the merged model is broken, or of another network.
            TransientError: the store is away.
        """
        if self.part_of is None:
            raise InvalidEvent("federation", "federation", "this site is in no federation any more")
        own = self._package(adaptation, examples)
        merged = self.part_of(adaptation.request.site_id).take_up(own, closed)
        provenance = dict(own.provenance) | dict(merged.provenance)
        return self._stored(replace(merged, provenance=provenance), adaptation, examples)

    def _package(self, adaptation: Adaptation, examples: Material) -> ModelPackage:
        progress = self._progress(adaptation, examples)
        return progress.learner.package(progress.state)

    def _stored(self, package: ModelPackage, adaptation: Adaptation, examples: Material) -> Trained:
        present = self._batch(examples.present, adaptation)
        studies = np.unique([example.study_id for example in examples.present], return_inverse=True)[1]
        reference = measure_reference(
            Engine(package), present.images, present.labels, self.settings.seed, studies
        )
        why = self._progress(adaptation, examples).why
        package = replace(
            package,
            reference=reference.to_tensors(),
            provenance=dict(package.provenance) | _lineage(adaptation) | told(why),
        )
        with tempfile.TemporaryDirectory(prefix="medloop-candidate-") as folder:
            path = Path(folder) / "model.safetensors"
            digest = save_package(package, path)
            stored = self.artifacts.put(path)
        family = adaptation.base.version.rsplit("-", 1)[0]
        return Trained(version=f"{family}-{digest[:DIGEST_DIGITS]}", package=stored, why=why)

    def _progress(self, adaptation: Adaptation, examples: Material) -> Progress:
        """Return the site's learner, taught exactly what the state says."""
        request = adaptation.request
        progress = self._sites.get(request.site_id)
        if (
            progress is None
            or progress.request_id != request.event_id
            or progress.trained != adaptation.trained
        ):
            progress = self._resumed(adaptation, examples)
            while progress.trained < adaptation.trained:
                self._teach(progress, adaptation, examples)
            self._sites[request.site_id] = progress
        return progress

    def _resumed(self, adaptation: Adaptation, examples: Material) -> Progress:
        """Return a learner as its last checkpoint has it, or as it begins."""
        request = adaptation.request
        try:
            learner, why = self.open_learner(self.artifacts, self.settings, adaptation)
            found = self.checkpoints.latest(
                request.site_id,
                request.event_id,
                adaptation.trained,
                lambda trained: self._identity(learner.plan, adaptation, examples, trained),
            )
            if found is not None:
                trained, state = found
                return Progress(request.event_id, learner, why, state, trained)
            old = self._batch(examples.old, adaptation, examples.domains) if examples.old else None
            return Progress(request.event_id, learner, why, learner.begin(old))
        except ModelError as error:
            raise InvalidEvent(error.code, "base_version", str(error)) from error

    def _teach(self, progress: Progress, adaptation: Adaptation, examples: Material) -> Metrics:
        taught = examples.mini_batch(progress.trained, self.settings.batch_size)
        progress.state, metrics = progress.learner.step(progress.state, self._batch(taught, adaptation))
        progress.trained += self.settings.batch_size
        return metrics

    def _keep(self, progress: Progress, adaptation: Adaptation, examples: Material) -> None:
        if progress.trained // self.settings.batch_size % self.settings.checkpoint_every:
            return
        request = adaptation.request
        identity = self._identity(progress.learner.plan, adaptation, examples, progress.trained)
        self.checkpoints.keep(request.site_id, request.event_id, progress.trained, progress.state, identity)

    def _identity(self, plan: TrainingPlan, adaptation: Adaptation, examples: Material, trained: int) -> str:
        """Return the SHA-256 of all that a learner depends on after `trained` new examples."""
        size = self.settings.batch_size
        mini_batches = [examples.mini_batch(start, size) for start in range(0, trained, size)]
        base = adaptation.base
        depends_on = {
            "software": SOFTWARE,
            "base": base.package.sha256,
            "teacher": base.teacher.sha256 if base.teacher else None,
            "fisher": adaptation.fisher.sha256 if adaptation.fisher else None,
            "plan": asdict(plan),
            "old": [_named(each) for each in examples.old],
            "domains": examples.domains,
            "taught": [[_named(each) for each in mini_batch] for mini_batch in mini_batches],
        }
        return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()

    def _batch(
        self, examples: Sequence[ExampleLabelled], adaptation: Adaptation, domains: tuple[str, ...] = ()
    ) -> Batch:
        images: NDArray[np.uint8] = np.stack([pixels_of(each.frame, self.artifacts) for each in examples])
        classes = classes_of(adaptation.request, adaptation.base)
        labels = np.array(class_indices(examples, classes), np.int64)
        return Batch(images, labels, tuple(example.image_id for example in examples), domains)


def open_streaming_learner(
    artifacts: ArtifactStore, settings: LearnerSettings, adaptation: Adaptation
) -> tuple[StreamingLearner, tuple[Reason, ...]]:
    """Return the learner that an adaptation starts with, and why its plan is what it is.

    Raises:
        CorruptArtifact, ModelError: the base model or its teacher is broken.
        TransientError: their store is away.
    """
    request, base = adaptation.request, adaptation.base
    package = load_package(artifacts.fetch(base.package), parts=("latent", "fisher"))
    if adaptation.fisher is not None:
        fisher = load_fisher(artifacts.fetch(adaptation.fisher), package, base.package.sha256)
        package = replace(package, fisher=fisher)
    teacher = None if base.teacher is None else artifacts.fetch(base.teacher)
    choice = choose(
        Cause(request.diagnosis.value),
        ModelFacts.of(package, teacher),
        Labels(old=adaptation.opened_at, new=settings.labels_per_attempt(request.strategy)),
        Bounds(fewest_labels=1, article=settings.article),
        new_classes=classes_of(request, base)[len(base.classes) :],
        seed=settings.seed,
    )
    if choice.plan is None:
        raise InvalidEvent("untrainable", "diagnosis", choice.reasons[-1].sentence)
    log.info("adaptation planned", site=request.site_id, request=request.event_id, **told(choice.reasons))
    return StreamingLearner(package, teacher if choice.distils else None, choice.plan), choice.reasons


def _named(example: ExampleLabelled) -> tuple[str, str, str]:
    """What tells an example from another: two simulations may use one id for different pixels."""
    frame = example.frame
    pixels = frame.sha256 or hashlib.sha256((frame.data or "").encode()).hexdigest()
    return example.image_id, pixels, example.class_name


def _lineage(adaptation: Adaptation) -> dict[str, str | int | None]:
    return {
        "base_version": adaptation.base.version,
        "request_id": adaptation.request.event_id,
        "diagnosis": adaptation.request.diagnosis.value,
        "attempt": adaptation.attempt,
        "fisher_sha256": None if adaptation.fisher is None else adaptation.fisher.sha256,
        "labels_used": adaptation.labels_used,
    }
