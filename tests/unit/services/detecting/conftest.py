from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from medloop_model.statistics import Reference
from medloop_schemas import ImageStatistics
from numpy.typing import NDArray

WIDTH = 8


def draw(generator: np.random.Generator, images: int, shift: float = 0.0) -> tuple[np.ndarray, ...]:
    predicted = (generator.random(images) < 0.3).astype(np.int64)
    scalars = generator.normal(size=(images, 3)) + 2 * predicted[:, None] + shift
    embedding = generator.normal(size=(images, WIDTH)) + 2 * predicted[:, None] + shift
    return scalars, embedding, predicted


def answers_of(predicted: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n, 2) probabilities: 0.9 for the predicted class."""
    answers: NDArray[np.float64] = np.where(np.eye(2)[predicted] == 1, 0.9, 0.1)
    return answers


@pytest.fixture(scope="session")
def reference() -> Reference:
    scalars, embedding, predicted = draw(np.random.default_rng(0), 512)
    names = ("data.intensity", "data.noise", "decision.entropy")
    return Reference(
        scalars={name: column.astype(np.float32) for name, column in zip(names, scalars.T, strict=True)},
        embedding=embedding.astype(np.float32),
        probabilities=answers_of(predicted).astype(np.float32),
        labels=np.where(np.arange(512) % 10 == 0, 1 - predicted, predicted),
        studies=np.arange(512),
    )


@pytest.fixture(scope="session")
def held_out() -> Callable[[float], list[ImageStatistics]]:
    """Draw 400 measured images: `held_out(shift)`."""

    def make(shift: float) -> list[ImageStatistics]:
        scalars, embedding, predicted = draw(np.random.default_rng(1), 400, shift)
        return [
            ImageStatistics(
                image_id=f"held-out-{n}",
                sequence=n,
                predicted_class=int(predicted[n]),
                data={"intensity": scalars[n, 0], "noise": scalars[n, 1]},
                decision={"entropy": scalars[n, 2]},
                activation={},
                embedding=tuple(embedding[n].tolist()),
                probabilities=tuple(answers_of(predicted)[n].tolist()),
            )
            for n in range(400)
        ]

    return make
