"""Standardises an image's statistics against what the model's own answer to it leads one to expect.

Every scalar and every component of the embedding is predicted from the model's answer, by a linear
regression on the reference: an image is odd if it is unlike the images that the model is as sure of. A change
of the case mix (a day of one kind of patient) moves the answers, and with them what is expected; it leaves
the residuals alone, as far as the answer says all about the class that the statistic does. The decision layer
is itself a function of the answer; what watches it has to allow for every mix of classes.

Shapes: n reference images, k scalars, c classes, d embedding width, p components, f = 2c regressors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from medloop_model.statistics import Reference
from medloop_schemas import ImageStatistics, InvalidEvent, StatsMeasured
from numpy.typing import NDArray

from medloop_services.drift_detection.detectors.detector import Channels, Images

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Numbers = NDArray[np.floating]

MOST_DEVIATIONS = 3.0
"""Standard scores are cut here, so that one odd image is one vote and not a landslide."""

SMALLEST_SCALE = 1e-3
FEWEST_OF_A_CLASS = 16
"""A class with fewer reference images has the scale of all of them."""

COMPONENTS = 16
"""Principal components of the embedding that are watched."""

RIDGE = 1e-3
"""Added to the normal equations: probabilities of classes that hardly occur determine nothing."""

SUREST = 1e-3
"""Log-odds are those of a probability at least this far from 0 and 1."""


@dataclass(frozen=True)
class Baseline:
    """What is expected of one model version.

    Attributes:
        scalars: their layers and names, in column order.
        slopes, feature_slopes: (f, k) and (f, d), of the regressions on the answer.
        scale, feature_scale: (c, k) and (c, p), standard deviation of the residuals by predicted class.
        components: (d, p), principal directions of the embedding's residuals.
    """

    scalars: Channels
    slopes: FloatArray
    scale: FloatArray
    feature_slopes: FloatArray
    feature_scale: FloatArray
    components: FloatArray

    @classmethod
    def of(cls, reference: Reference) -> Baseline:
        """Return the baseline that a reference defines."""
        scalars = Channels.named(reference.names)
        matrix, answers = reference.matrix().astype(np.float64), reference.probabilities.astype(np.float64)
        regressors, predicted = _regressors(answers), answers.argmax(1)
        slopes = _regression(regressors, matrix)
        embedding = reference.embedding.astype(np.float64)
        feature_slopes = _regression(regressors, embedding)
        residual = embedding - regressors @ feature_slopes
        components = np.linalg.svd(residual, full_matrices=False)[2][:COMPONENTS].T
        return cls(
            scalars=scalars,
            slopes=slopes,
            scale=_scale(matrix - regressors @ slopes, predicted, answers.shape[1]),
            feature_slopes=feature_slopes,
            feature_scale=_scale(residual @ components, predicted, answers.shape[1]),
            components=components,
        )

    def of_reference(self, reference: Reference) -> Images:
        """Return a reference's own images as one stream."""
        return self.standardised(reference.matrix(), reference.embedding, reference.probabilities)

    def batch(self, event: StatsMeasured) -> Images:
        """Return a micro-batch as one stream.

        Raises:
            InvalidEvent: the model's reference has other scalars, classes or another embedding width.
        """
        return self.standardised(
            np.array([self._row(image) for image in event.images]),
            np.array([_finite("embedding", self._embedding(image)) for image in event.images]),
            np.array([_finite("probabilities", self._answer(image)) for image in event.images]),
        )

    def standardised(self, matrix: Numbers, embedding: Numbers, answers: Numbers) -> Images:
        """Return b images as one stream.

        Args:
            matrix: (b, k) scalars.
            embedding: (b, d).
            answers: (b, c) probabilities.
        """
        regressors, predicted = _regressors(np.asarray(answers, np.float64)), answers.argmax(1)
        residual = (embedding - regressors @ self.feature_slopes) @ self.components
        return Images(
            _clipped((matrix - regressors @ self.slopes) / self.scale[predicted]),
            _clipped(residual / self.feature_scale[predicted]),
            np.asarray(answers, np.float64)[np.newaxis],
        )

    def _answer(self, image: ImageStatistics) -> tuple[float, ...]:
        classes = len(self.scale)
        if len(image.probabilities) != classes:
            raise InvalidEvent(
                "shape",
                "images.probabilities",
                f"{len(image.probabilities)} values, but the model's reference has {classes} classes",
            )
        if image.predicted_class >= classes:
            raise InvalidEvent(
                "range",
                "images.predicted_class",
                f"{image.predicted_class}, but the model's reference has {classes} classes",
            )
        return image.probabilities

    def _embedding(self, image: ImageStatistics) -> tuple[float, ...]:
        if len(image.embedding) != len(self.components):
            raise InvalidEvent(
                "shape",
                "images.embedding",
                f"{len(image.embedding)} values, but the model's reference has {len(self.components)}",
            )
        return image.embedding

    def _row(self, image: ImageStatistics) -> Sequence[float]:
        layers = {"data": image.data, "decision": image.decision, "activation": image.activation}
        try:
            row = [layers[layer][name] for layer, name in self.scalars.parts]
        except KeyError as error:
            raise InvalidEvent(
                "missing", f"images.{error.args[0]}", "the model's reference has it, these stats have not"
            ) from None
        for (layer, name), value in zip(self.scalars.parts, row, strict=True):
            _finite(f"{layer}.{name}", (value,))
        return row


def _finite(field: str, values: Sequence[float]) -> Sequence[float]:
    if not all(map(isfinite, values)):
        raise InvalidEvent("range", f"images.{field}", "holds a value that is no finite number")
    return values


def _regressors(answers: FloatArray) -> FloatArray:
    """Return (n, 2c): the probabilities, which add up to a constant, and the predicted class's log-odds."""
    classes = answers.shape[1]
    likeliest = answers.max(1).clip(SUREST, 1 - SUREST)
    log_odds = np.log(likeliest / (1 - likeliest))
    return np.hstack([answers, np.eye(classes)[answers.argmax(1)] * log_odds[:, np.newaxis]])


def _regression(regressors: FloatArray, values: FloatArray) -> FloatArray:
    """Return the (f, ·) coefficients of least squares with a ridge."""
    normal = regressors.T @ regressors + RIDGE * np.eye(regressors.shape[1])
    return np.asarray(np.linalg.solve(normal, regressors.T @ values), np.float64)


def _scale(residual: FloatArray, predicted: IntArray, classes: int) -> FloatArray:
    members = [predicted == index for index in range(classes)]
    scales = [residual[rows if rows.sum() >= FEWEST_OF_A_CLASS else ...].std(0) for rows in members]
    return np.asarray(np.maximum(np.stack(scales), SMALLEST_SCALE), np.float64)


def _clipped(scores: FloatArray) -> FloatArray:
    clipped: FloatArray = scores.clip(-MOST_DEVIATIONS, MOST_DEVIATIONS)[np.newaxis]
    return clipped
