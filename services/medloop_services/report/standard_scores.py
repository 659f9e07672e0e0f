"""Standard scores of images for the report: how many standard deviations each statistic is off.

An image is compared with the reference images that the model answered alike, so that another case mix is no
shift. The embedding becomes one more statistic, `feature.embedding`: its distance to the class's centre,

    d = [Σ_j (e_j − m_j)² / (D s_j²)]^½,    standardised by the reference's own distances.

Shapes: n images, k statistics and the embedding's distance, c classes, D the embedding's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from medloop_model.statistics import Reference
from medloop_schemas import ImageStatistics
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

EMBEDDING = "feature.embedding"

MOST_DEVIATIONS = 6.0
"""Scores are cut here: further off is off, and a statistic that hardly varies can't drown the others."""

SMALLEST_SCALE = 1e-3
FEWEST_OF_A_CLASS = 16
"""A class with fewer reference images is compared with all of them."""


@dataclass(frozen=True)
class Standard:
    """What is usual for one model version.

    Attributes:
        names: `layer.statistic` of the k statistics, then `EMBEDDING`.
        centre, scale: (c, k).
        embedding_centre, embedding_scale: (c, D).
        distance_centre, distance_scale: (c,).
        error_rate: share of the reference that the reader calls something else, never 0 or 1.
    """

    names: tuple[str, ...]
    centre: FloatArray
    scale: FloatArray
    embedding_centre: FloatArray
    embedding_scale: FloatArray
    distance_centre: FloatArray
    distance_scale: FloatArray
    error_rate: float

    @classmethod
    def of(cls, reference: Reference) -> Standard:
        """Return the standard that a reference sets."""
        classes = reference.probabilities.shape[1]
        centre, scale = _by_class(reference.matrix().astype(np.float64), reference.predicted, classes)
        embedding = reference.embedding.astype(np.float64)
        predicted = reference.predicted
        middle, width = _by_class(embedding, predicted, classes)
        distances = _distance(embedding, middle[predicted], width[predicted])
        usual, spread = _by_class(distances[:, np.newaxis], predicted, classes)
        count = len(reference.wrong)
        return cls(
            names=(*reference.names, EMBEDDING),
            centre=centre,
            scale=scale,
            embedding_centre=middle,
            embedding_scale=width,
            distance_centre=usual[:, 0],
            distance_scale=spread[:, 0],
            error_rate=float((reference.wrong.sum() + 0.5) / (count + 1)),
        )

    def covers(self, image: ImageStatistics) -> bool:
        """Return whether an image has all that the reference has, so that it can be scored."""
        return (
            image.predicted_class < len(self.centre)
            and len(image.embedding) == self.embedding_centre.shape[1]
            and _statistics(image).keys() >= set(self.names[:-1])
        )

    def scores(self, images: Sequence[ImageStatistics]) -> FloatArray:
        """Return (n, k + 1) standard scores, within ± MOST_DEVIATIONS; columns as `names`.

        Args:
            images: such as are covered.
        """
        if not images:
            return np.zeros((0, len(self.names)))
        predicted = np.array([image.predicted_class for image in images])
        by_name = [_statistics(image) for image in images]
        values = np.array([[statistics[name] for name in self.names[:-1]] for statistics in by_name])
        embedding = np.array([image.embedding for image in images])
        distance = _distance(embedding, self.embedding_centre[predicted], self.embedding_scale[predicted])
        scores: FloatArray = np.column_stack(
            [
                (values - self.centre[predicted]) / self.scale[predicted],
                (distance - self.distance_centre[predicted]) / self.distance_scale[predicted],
            ]
        )
        return scores.clip(-MOST_DEVIATIONS, MOST_DEVIATIONS)

    def error_score(self, wrong: bool) -> float:
        """Return how far one label is off the usual share of errors, in standard deviations of one label."""
        return (float(wrong) - self.error_rate) / float(np.sqrt(self.error_rate * (1 - self.error_rate)))


def overall_distance(scores: FloatArray) -> FloatArray:
    """Return (n,) root mean square of each image's scores (n, k): 1 is usual."""
    distance: FloatArray = np.sqrt((scores**2).mean(axis=1))
    return distance


def _statistics(image: ImageStatistics) -> dict[str, float]:
    layers = {"data": image.data, "decision": image.decision, "activation": image.activation}
    return {f"{layer}.{name}": value for layer, values in layers.items() for name, value in values.items()}


def _by_class(matrix: FloatArray, predicted: IntArray, classes: int) -> tuple[FloatArray, FloatArray]:
    everything = np.ones(len(predicted), np.bool_)
    members = [predicted == index for index in range(classes)]
    rows = [row if row.sum() >= FEWEST_OF_A_CLASS else everything for row in members]
    centre = np.stack([matrix[row].mean(0) for row in rows])
    scale = np.stack([matrix[row].std(0) for row in rows])
    return centre, np.maximum(scale, SMALLEST_SCALE)


def _distance(embedding: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
    return overall_distance((embedding - centre) / scale)
