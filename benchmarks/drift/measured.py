"""Statistics of images, measured once, from which any number of streams is then drawn.

Shapes: n images, k scalars, d embedding width, p components, c classes of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime

import numpy as np
from medloop_schemas import ImageStatistics
from medloop_services.drift_detection.baseline import Baseline
from medloop_services.drift_detection.detectors.detector import Images
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Index = NDArray[np.int64]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Measured:
    """Row i of every array is the same image.

    Attributes:
        scalars: (n, k) raw values, columns as in the baseline.
        embedding: (n, d).
        scores, features: (n, k) and (n, p), both standardised by the model's baseline.
        probabilities: (n, c) the model's answers.
        labels: (n,) class of the image, by which streams are drawn.
        read: (n,) class that its reader names: another one once the readers have changed their minds.
    """

    scalars: FloatArray
    embedding: FloatArray
    scores: FloatArray
    features: FloatArray
    probabilities: FloatArray
    labels: Index
    read: Index

    @classmethod
    def of(cls, images: list[ImageStatistics], labels: Index, baseline: Baseline) -> Measured:
        """Return the measurements of images as detectors see them.

        Args:
            images: n of them.
            labels: (n,).
            baseline: of the model that was measured.
        """
        layers = [{"data": i.data, "decision": i.decision, "activation": i.activation} for i in images]
        names = baseline.scalars.parts
        scalars = np.array([[layer[first][rest] for first, rest in names] for layer in layers])
        embedding = np.array([image.embedding for image in images])
        probabilities = np.array([image.probabilities for image in images])
        standardised = baseline.standardised(scalars, embedding, probabilities)
        return cls(
            scalars=scalars,
            embedding=embedding,
            scores=standardised.scores[0],
            features=standardised.features[0],
            probabilities=probabilities,
            labels=labels,
            read=labels,
        )

    @property
    def predicted(self) -> Index:
        """The model's class of each image, (n,)."""
        predicted: Index = self.probabilities.argmax(1)
        return predicted

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Index | slice) -> Measured:
        """Return some rows, in that order."""
        return Measured(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def then(self, later: Measured) -> Measured:
        """Return these images followed by others."""
        return Measured(
            **{
                field.name: np.concatenate([getattr(self, field.name), getattr(later, field.name)])
                for field in fields(self)
            }
        )

    def as_images(self) -> Images:
        """Return the images as one micro-batch of drift_detection."""
        return Images(self.scores[np.newaxis], self.features[np.newaxis], self.probabilities[np.newaxis])

    def statistics(self, baseline: Baseline, sequences: list[int]) -> list[ImageStatistics]:
        """Return the images as feature_stats wrote them.

        Args:
            baseline: names the columns.
            sequences: one an image.
        """
        rows = zip(
            sequences,
            self.scalars.tolist(),
            self.embedding.tolist(),
            self.probabilities.tolist(),
            strict=True,
        )
        names = baseline.scalars.parts
        images = []
        for sequence, values, embedding, probabilities in rows:
            layers: dict[str, dict[str, float]] = {"data": {}, "decision": {}, "activation": {}}
            for (layer, name), value in zip(names, values, strict=True):
                layers[layer][name] = value
            images.append(
                ImageStatistics(
                    image_id=f"image-{sequence}",
                    sequence=sequence,
                    predicted_class=int(np.argmax(probabilities)),
                    data=layers["data"],
                    decision=layers["decision"],
                    activation=layers["activation"],
                    embedding=tuple(embedding),
                    probabilities=tuple(probabilities),
                )
            )
        return images
