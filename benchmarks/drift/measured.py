"""Statistics of images, measured once, from which any number of streams is then drawn.

Shapes: n images, k scalars, d embedding width, p components.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime

import numpy as np
from medloop_schemas import ImageStatistics, StatsMeasured
from medloop_services.drift_detection.baseline import Baseline
from medloop_services.drift_detection.detectors.detector import Batch
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Index = NDArray[np.int64]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
STANDARDISED_AT_ONCE = 256


@dataclass(frozen=True)
class Measured:
    """Row i of every array is the same image.

    Attributes:
        scalars: (n, k) raw values, columns as in the baseline.
        embedding: (n, d).
        scores, features: (n, k) and (n, p), both standardised by the model's baseline.
        predicted: (n,) the model's class.
        labels: (n,) class of the image, by which streams are drawn.
        read: (n,) class that its reader names: another one once the readers have changed their minds.
    """

    scalars: FloatArray
    embedding: FloatArray
    scores: FloatArray
    features: FloatArray
    predicted: Index
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
        batches = [
            baseline.batch(_event(images[start : start + STANDARDISED_AT_ONCE]))
            for start in range(0, len(images), STANDARDISED_AT_ONCE)
        ]
        layers = [{"data": i.data, "decision": i.decision, "activation": i.activation} for i in images]
        names = baseline.scalars.split_names
        return cls(
            scalars=np.array([[layer[first][rest] for first, rest in names] for layer in layers]),
            embedding=np.array([image.embedding for image in images]),
            scores=np.concatenate([batch.scores for batch in batches]),
            features=np.concatenate([batch.features for batch in batches]),
            predicted=np.array([image.predicted_class for image in images]),
            labels=labels,
            read=labels,
        )

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

    def batch(self, first_sequence: int = 0) -> Batch:
        """Return the images as one micro-batch of drift_detection."""
        sequences = tuple(range(first_sequence, first_sequence + len(self)))
        return Batch(sequences, self.scores, self.features)

    def statistics(self, baseline: Baseline, sequences: list[int]) -> list[ImageStatistics]:
        """Return the images as feature_stats wrote them.

        Args:
            baseline: names the columns.
            sequences: one an image.
        """
        rows = zip(
            sequences, self.scalars.tolist(), self.embedding.tolist(), self.predicted.tolist(), strict=True
        )
        names = baseline.scalars.split_names
        images = []
        for sequence, values, embedding, predicted in rows:
            layers: dict[str, dict[str, float]] = {"data": {}, "decision": {}, "activation": {}}
            for (layer, name), value in zip(names, values, strict=True):
                layers[layer][name] = value
            images.append(
                ImageStatistics(
                    image_id=f"image-{sequence}",
                    sequence=sequence,
                    predicted_class=predicted,
                    data=layers["data"],
                    decision=layers["decision"],
                    activation=layers["activation"],
                    embedding=tuple(embedding),
                )
            )
        return images


def _event(images: list[ImageStatistics]) -> StatsMeasured:
    return StatsMeasured(
        time=EPOCH, device_id="device", site_id="site", model_version="model", images=tuple(images)
    )
