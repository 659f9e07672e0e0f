"""Standardises an image's statistics against the reference images that the model answered alike.

Comparing within a predicted class keeps a change of the case mix (a day of one kind of patient) from looking
like a change of the scanner.

Shapes: n reference images, k scalars, c classes, d embedding width, p components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from medloop_model.statistics import Reference
from medloop_schemas import ImageStatistics, InvalidEvent, Layer, StatsMeasured
from numpy.typing import NDArray

from medloop_services.drift_detection.detectors.detector import Batch, Scalars

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_DEVIATIONS = 3.0
"""Standard scores are cut here, so that one odd image is one vote and not a landslide."""

SMALLEST_SCALE = 1e-3
FEWEST_OF_A_CLASS = 16
"""A class with fewer reference images is compared with all of them."""

COMPONENTS = 16
"""Principal components of the embedding that are watched."""


@dataclass(frozen=True)
class Baseline:
    """What standard means for one model version.

    Attributes:
        scalars: their names and layers, in column order.
        centre, scale: (c, k), mean and standard deviation by predicted class.
        feature_centre: (c, d), mean embedding by predicted class.
        components: (d, p), principal directions of the centred embedding.
        reference_scores: (n, k), the reference itself, standardised.
        reference_features: (m, p), its embeddings, centred and projected.
    """

    scalars: Scalars
    centre: FloatArray
    scale: FloatArray
    feature_centre: FloatArray
    components: FloatArray
    reference_scores: FloatArray
    reference_features: FloatArray

    @classmethod
    def of(cls, reference: Reference) -> Baseline:
        """Return the baseline that a reference defines."""
        names = reference.names
        matrix = reference.matrix().astype(np.float64)
        rows = _rows_by_class(reference.predicted, len(reference.class_mix))
        centre = np.stack([matrix[members].mean(0) for members in rows])
        scale = np.maximum(np.stack([matrix[members].std(0) for members in rows]), SMALLEST_SCALE)
        embedding = reference.embedding.astype(np.float64)
        feature_rows = _rows_by_class(reference.predicted[: len(embedding)], len(reference.class_mix))
        feature_centre = np.stack([embedding[members].mean(0) for members in feature_rows])
        residual = embedding - feature_centre[reference.predicted[: len(embedding)]]
        directions = np.linalg.svd(residual, full_matrices=False)[2]
        components = directions[:COMPONENTS].T
        return cls(
            scalars=Scalars(names, tuple(Layer(name.split(".", 1)[0]) for name in names)),
            centre=centre,
            scale=scale,
            feature_centre=feature_centre,
            components=components,
            reference_scores=_scores(matrix, centre[reference.predicted], scale[reference.predicted]),
            reference_features=residual @ components,
        )

    def batch(self, event: StatsMeasured) -> Batch:
        """Return a micro-batch, standardised.

        Raises:
            InvalidEvent: the model's reference has other scalars, classes or another embedding width.
        """
        matrix = np.array([self._row(image) for image in event.images])
        predicted = [image.predicted_class for image in event.images]
        embedding = np.array([image.embedding for image in event.images], np.float64)
        return Batch(
            sequences=tuple(image.sequence for image in event.images),
            scores=_scores(matrix, self.centre[predicted], self.scale[predicted]),
            features=np.round((embedding - self.feature_centre[predicted]) @ self.components, 4),
        )

    def _row(self, image: ImageStatistics) -> list[float]:
        if image.predicted_class >= len(self.centre):
            raise InvalidEvent(
                "range",
                "images.predicted_class",
                f"{image.predicted_class}, but the model's reference has {len(self.centre)} classes",
            )
        if len(image.embedding) != len(self.components):
            raise InvalidEvent(
                "shape",
                "images.embedding",
                f"{len(image.embedding)} values, but the model's reference has {len(self.components)}",
            )
        layers = {"data": image.data, "decision": image.decision, "activation": image.activation}
        try:
            return [layers[layer][name] for layer, name in self.scalars.split_names]
        except KeyError as error:
            raise InvalidEvent(
                "missing", f"images.{error.args[0]}", "the model's reference has it, these stats have not"
            ) from None


def _rows_by_class(predicted: IntArray, classes: int) -> list[NDArray[np.bool_]]:
    everything = np.ones(len(predicted), np.bool_)
    members = [predicted == index for index in range(classes)]
    return [rows if rows.sum() >= FEWEST_OF_A_CLASS else everything for rows in members]


def _scores(matrix: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
    scores: FloatArray = (matrix - centre) / scale
    # Rounded, so that a state's JSON is small.
    return scores.clip(-MOST_DEVIATIONS, MOST_DEVIATIONS).round(4)
