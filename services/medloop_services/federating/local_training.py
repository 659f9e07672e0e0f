"""A site's training between two rounds, kept by what it depends on: an interrupted run goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from medloop_model.checkpoint import ModelPackage, load_package, save_package
from medloop_model.training.batch import Batch
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.streaming import StreamingLearner

from medloop_services.pretraining import training_digest
from medloop_services.replay.split import Split

RECIPE = 1
"""Grows when training gives something else from the same plan, so that nothing old is taken up again."""


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """Trains models on sites' images, one mini-batch after the other.

    Attributes:
        folder: for trained models, by a digest of what each depends on.
        batch_size: labelled images a mini-batch.
        report: told about every mini-batch: stage, done, to do, loss.
    """

    folder: Path
    batch_size: int
    report: Callable[[str, int, int, float], None]

    def trained(self, base: ModelPackage, images: Split, plan: TrainingPlan, stage: str) -> ModelPackage:
        """A model after all of a site's images, once.

        Args:
            base: with its latent weights and Fisher information.
            images: the site's.
            plan: how.
            stage: a name for the progress bar.
        """
        path = self.folder / f"{_key(base, images, plan, self.batch_size)}.safetensors"
        batches = range(0, len(images), self.batch_size)
        if path.is_file():
            self.report(stage, len(batches), len(batches), 0.0)
            return load_package(path, parts=("packed", "latent", "fisher"))
        learner = StreamingLearner(base, None, plan)
        state = learner.begin()
        for number, start in enumerate(batches):
            part = slice(start, start + self.batch_size)
            ids = tuple(map(str, images.studies[part]))
            state, metrics = learner.step(state, Batch(images.images[part], images.labels[part], ids))
            self.report(stage, number + 1, len(batches), metrics.loss)
        save_package(package := learner.package(state), path)
        return package


def plan_for(base: ModelPackage, seed: int) -> TrainingPlan:
    """How a site trains in a round: everything moves, three steps a mini-batch, no teacher, no old images."""
    plan = TrainingPlan.for_strategy("shallow-ewc", base.architecture.classes, seed)
    return replace(plan, everything=True, rehearsal_steps=2, retention=0.0, fisher_images=8)


def _key(base: ModelPackage, images: Split, plan: TrainingPlan, batch_size: int) -> str:
    content = hashlib.sha256(training_digest(images).encode())
    for part in (base.latent, base.fisher):
        for name in sorted(part):
            content.update(name.encode())
            content.update(part[name].tobytes())
    content.update(json.dumps([asdict(plan), batch_size, RECIPE], sort_keys=True).encode())
    return content.hexdigest()[:24]
