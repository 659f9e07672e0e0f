from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from medloop_model.statistics import Reference
from medloop_schemas import ImageStatistics, LabelConfirmed, StatsMeasured
from medloop_services.drift_detection.panel import Panel
from medloop_services.drift_detection.settings import DriftDetectionSettings
from numpy.typing import NDArray

SCALARS = (
    "data.intensity",
    "data.noise",
    "decision.entropy",
    "activation.block0.mean",
    "activation.block0.dead",
)
WIDTH = 12
CLASS_DISTANCE = 2.0
ERROR_RATE = 0.1

Rows = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def draw(generator: np.random.Generator, images: int, shift: float = 0.0) -> Rows:
    """Scalars, embeddings, answers; the classes lie apart, and `shift` moves everything but the answers."""
    predicted = (generator.random(images) < 0.3).astype(np.int64)
    sure = generator.uniform(0.8, 1.0, images)
    answers = np.stack(
        [np.where(predicted == 0, sure, 1 - sure), np.where(predicted == 1, sure, 1 - sure)], 1
    )
    scalars = generator.normal(size=(images, len(SCALARS))) + CLASS_DISTANCE * predicted[:, None] + shift
    scalars[:, -1] = 0.0
    embedding = generator.normal(size=(images, WIDTH)) + CLASS_DISTANCE * predicted[:, None] + shift
    return scalars, embedding, answers


@pytest.fixture(scope="session")
def reference() -> Reference:
    generator = np.random.default_rng(0)
    scalars, embedding, answers = draw(generator, 512)
    wrong = generator.random(512) < ERROR_RATE
    return Reference(
        scalars={name: column.astype(np.float32) for name, column in zip(SCALARS, scalars.T, strict=True)},
        embedding=embedding.astype(np.float32),
        probabilities=answers.astype(np.float32),
        labels=np.where(wrong, 1 - answers.argmax(1), answers.argmax(1)),
        studies=np.arange(512),
    )


@pytest.fixture(scope="session")
def settings() -> DriftDetectionSettings:
    return DriftDetectionSettings()


@pytest.fixture(scope="session")
def panel(reference: Reference, settings: DriftDetectionSettings) -> Panel:
    return Panel.calibrated(reference, settings)


def moment(seconds: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


StatsOf = Callable[..., list[StatsMeasured]]
LabelOf = Callable[..., LabelConfirmed]


@pytest.fixture(scope="session")
def stats() -> StatsOf:
    """Make micro-batches of 16: `stats(images, seed, shift=0, first=0, version="ward-1")`."""

    def make(
        images: int, seed: int, shift: float = 0.0, first: int = 0, version: str = "ward-1"
    ) -> list[StatsMeasured]:
        scalars, embedding, answers = draw(np.random.default_rng(seed), images, shift)
        rows = [
            ImageStatistics(
                image_id=f"image-{first + n}",
                sequence=first + n,
                predicted_class=int(answers[n].argmax()),
                data={"intensity": scalars[n, 0], "noise": scalars[n, 1]},
                decision={"entropy": scalars[n, 2]},
                activation={"block0.mean": scalars[n, 3], "block0.dead": scalars[n, 4]},
                embedding=tuple(embedding[n].tolist()),
                probabilities=tuple(answers[n].tolist()),
            )
            for n in range(images)
        ]
        return [
            StatsMeasured(
                time=moment(first + start),
                device_id="device",
                site_id="site",
                model_version=version,
                images=tuple(rows[start : start + 16]),
            )
            for start in range(0, images, 16)
        ]

    return make


@pytest.fixture(scope="session")
def label() -> LabelOf:
    """Make the label of an image: `label(sequence, class_index, image=sequence)`."""

    def make(sequence: int, class_index: int, image: int | None = None) -> LabelConfirmed:
        return LabelConfirmed(
            time=moment(sequence),
            image_id=f"image-{sequence if image is None else image}",
            device_id="device",
            site_id="site",
            sequence=sequence,
            class_index=class_index,
            class_name=f"class {class_index}",
        )

    return make
