"""A site's training between two rounds, kept by what it depends on: an interrupted run goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from medloop_model.checkpoint import ModelPackage, load_package, save_package
from medloop_model.training.batch import Batch
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.strategies import measured_plan
from medloop_model.training.streaming import StreamingLearner

from medloop_services.pretraining import training_digest
from medloop_services.replay.split import Split

RECIPE = 2
"""Grows when training gives something else from the same plan, so that nothing old is taken up again."""


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """Trains models on sites' images, one mini-batch after the other.

    Attributes:
        folder: for trained models, by a digest of what each depends on.
        remembered: a few images of all classes from where the base was trained, which come with it and are
            rehearsed everywhere: a site that sees one class alone would learn nothing else.
        batch_size: labelled images a mini-batch.
        report: told about every mini-batch: stage, done, to do, loss.
    """

    folder: Path
    remembered: Split
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
        path = self.folder / f"{self._key(base, images, plan)}.safetensors"
        batches = range(0, len(images), self.batch_size)
        if path.is_file():
            self.report(stage, len(batches), len(batches), 0.0)
            return load_package(path, parts=("packed", "latent", "fisher"))
        learner = StreamingLearner(base, None, plan)
        state = learner.begin(_batch(self.remembered))
        for number, start in enumerate(batches):
            batch = _batch(images.select(np.arange(start, min(start + self.batch_size, len(images)))))
            state, metrics = learner.step(state, batch)
            self.report(stage, number + 1, len(batches), metrics.loss)
        save_package(package := learner.package(state), path)
        return package

    def _key(self, base: ModelPackage, images: Split, plan: TrainingPlan) -> str:
        content = hashlib.sha256()
        for split in (images, self.remembered):
            content.update(training_digest(split).encode())
        for part in (base.latent, base.fisher):
            for name in sorted(part):
                content.update(name.encode())
                content.update(part[name].tobytes())
        recipe = [asdict(plan), self.batch_size, RECIPE]
        content.update(json.dumps(recipe, sort_keys=True).encode())
        return content.hexdigest()[:24]


def plan_for(base: ModelPackage, seed: int) -> TrainingPlan:
    """How a site trains in a round: everything moves, three steps a mini-batch, no teacher."""
    plan = measured_plan("shallow-ewc", base.architecture.classes, seed)
    return replace(plan, everything=True, rehearsal_steps=2, retention=0.0, fisher_images=8)


def _batch(split: Split) -> Batch:
    return Batch(split.images, split.labels, tuple(map(str, split.studies)))
