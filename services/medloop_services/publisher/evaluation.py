"""Packages run on images, for the gate and for what a base would have said instead of its canary."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from medloop_model.checkpoint import load_package
from medloop_model.engine import Engine
from medloop_model.errors import ModelError
from medloop_model.statistics import softmax
from medloop_schemas import Artifact, Frame, InvalidEvent

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.frames import pixels_of
from medloop_services.publisher.calibration import Answers

ENGINES_KEPT = 4
BATCH = 64


@dataclass(frozen=True, slots=True)
class EngineEvaluator:
    """Evaluates on the engine that also serves, so that what is judged is what runs.

    Attributes:
        artifacts: where packages and referenced frames come from.
    """

    artifacts: ArtifactStore
    _engines: OrderedDict[str, Engine] = field(default_factory=OrderedDict)

    def classes(self, package: Artifact) -> tuple[str, ...]:
        """Return the class names a package knows.

        Raises:
            InvalidEvent: the package is broken.
            TransientError: its store is away.
        """
        return self._engine(package).classes

    def answer(self, package: Artifact, frames: Sequence[Frame]) -> Answers:
        """Return how likely each class is, for each frame.

        Raises:
            InvalidEvent: the package is broken, or a frame does not fit it or can't be read.
            TransientError: a store is away.
        """
        engine = self._engine(package)
        parts = [np.zeros((0, len(engine.classes)), np.float32)]
        for start in range(0, len(frames), BATCH):
            images = [pixels_of(frame, self.artifacts) for frame in frames[start : start + BATCH]]
            try:
                parts.append(softmax(engine(np.stack(images)).logits))
            except (ModelError, ValueError) as error:
                raise InvalidEvent("shape", "frame", str(error)) from error
        return Answers(engine.classes, np.concatenate(parts))

    def _engine(self, package: Artifact) -> Engine:
        if package.sha256 not in self._engines:
            try:
                engine = Engine(load_package(self.artifacts.fetch(package)))
            except ModelError as error:
                raise InvalidEvent(error.code, "package", str(error)) from error
            self._engines[package.sha256] = engine
        self._engines.move_to_end(package.sha256)
        while len(self._engines) > ENGINES_KEPT:
            self._engines.popitem(last=False)
        return self._engines[package.sha256]
