"""The reference: what all four layers look like before anything drifts. It travels in the package.

Shapes: n reference images, d embedding width, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medloop_model.statistics.activation import activation_statistics
from medloop_model.statistics.augmentation import moved_by_one_pixel
from medloop_model.statistics.data import data_statistics
from medloop_model.statistics.decision import decision_statistics, softmax

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

REFERENCE_IMAGES = 512
BATCH = 64
LAYERS = ("data", "decision", "activation")
_SCALAR = "scalar."


class MeasuredOutput(Protocol):
    """What an engine says of B images."""

    @property
    def logits(self) -> FloatArray:
        """Class scores, (B, k)."""

    @property
    def embedding(self) -> FloatArray:
        """Mean-pooled features before the head, (B, d)."""

    @property
    def blocks(self) -> FloatArray:
        """Activation measures of each block, (B, depth, 4)."""


class ReferenceEngine(Protocol):
    """A model that can be measured."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""

    def __call__(self, images: NDArray[np.uint8], /) -> MeasuredOutput:
        """Run the model on uint8 images (B, H, W) or (B, H, W, C)."""


@dataclass(frozen=True)
class Reference:
    """Row i of every array is the same image.

    Attributes:
        scalars: `layer.statistic`, such as `data.noise` → float32 (n,), of the layers in `LAYERS`.
        embedding: float32 (n, d).
        probabilities: float32 (n, k), the model's answers.
        labels: int64 (n,), the readers' classes; one that the model does not have is k or higher.
        studies: int64 (n,): images of one study share a number, and depend on each other.
    """

    scalars: Mapping[str, FloatArray]
    embedding: FloatArray
    probabilities: FloatArray
    labels: IntArray
    studies: IntArray

    @cached_property
    def predicted(self) -> IntArray:
        """The model's class of each image, int64 (n,)."""
        predicted: IntArray = self.probabilities.argmax(1)
        return predicted

    @cached_property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether the reader disagrees with the model, bool (n,)."""
        wrong: NDArray[np.bool_] = self.predicted != self.labels
        return wrong

    @property
    def error_rate(self) -> float:
        """Share of reference images that the model gets wrong."""
        return float(self.wrong.mean())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scalars, sorted."""
        return tuple(sorted(self.scalars))

    def matrix(self) -> FloatArray:
        """Return the scalars as float32 (n, number of names), columns in the order of `names`."""
        return np.stack([self.scalars[name] for name in self.names], axis=1)

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays to keep under `reference/` in a package."""
        tensors: dict[str, NDArray[np.generic]] = {
            f"{_SCALAR}{name}": np.asarray(values, np.float32) for name, values in self.scalars.items()
        }
        return tensors | {
            "embedding": self.embedding.astype(np.float32),
            "probabilities": self.probabilities.astype(np.float32),
            "labels": self.labels.astype(np.int32),
            "studies": self.studies.astype(np.int32),
        }

    def select(self, rows: IntArray) -> Reference:
        """Return the reference that some of the images make, in that order; a row may come more than once."""
        return Reference(
            scalars={name: values[rows] for name, values in self.scalars.items()},
            embedding=self.embedding[rows],
            probabilities=self.probabilities[rows],
            labels=self.labels[rows],
            studies=self.studies[rows],
        )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Reference:
        """Return the reference whose `to_tensors()` these are.

        Raises:
            ValueError: a tensor is missing, or they disagree on the number of images.
        """
        missing = {"embedding", "probabilities", "labels", "studies"} - set(tensors)
        scalars = {
            name.removeprefix(_SCALAR): np.asarray(values, np.float32)
            for name, values in tensors.items()
            if name.startswith(_SCALAR)
        }
        if missing or not scalars:
            raise ValueError(
                f"the package has no complete monitoring reference (missing: "
                f"{', '.join(sorted(missing)) or 'scalars'}); make it with measure_reference"
            )
        reference = cls(
            scalars=scalars,
            embedding=np.asarray(tensors["embedding"], np.float32),
            probabilities=np.asarray(tensors["probabilities"], np.float32),
            labels=np.asarray(tensors["labels"], np.int64),
            studies=np.asarray(tensors["studies"], np.int64),
        )
        lengths = {len(values) for values in scalars.values()}
        lengths |= {len(reference.embedding), len(reference.probabilities), len(reference.studies)}
        if lengths != {len(reference.labels)}:
            raise ValueError("the monitoring reference's arrays differ in their number of images")
        return reference


def measure_reference(
    engine: ReferenceEngine,
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    seed: int = 0,
    studies: NDArray[np.integer] | None = None,
) -> Reference:
    """Measure a model on images that it was not trained on.

    Args:
        engine: the model.
        images: uint8 (N, H, W) or (N, H, W, C); at most 512 are drawn, without replacement.
        labels: (N,) class indices; one that the model does not have counts as wrong.
        seed: of the draw.
        studies: (N,), a number that images of one study share; unless given, each is a study of its own.

    Raises:
        ValueError: no images, or not one label an image.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(
            f"a reference needs one label an image, got {len(images)} images, {len(labels)} labels"
        )
    drawn = np.random.default_rng(seed).permutation(len(images))[:REFERENCE_IMAGES]
    rows = [_measure(engine, images[part]) for part in _batches(drawn)]
    return Reference(
        scalars={name: np.concatenate([row.scalars[name] for row in rows]) for name in rows[0].scalars},
        embedding=np.concatenate([row.embedding for row in rows]),
        probabilities=np.concatenate([row.probabilities for row in rows]),
        labels=np.asarray(labels).reshape(-1)[drawn].astype(np.int64),
        studies=(np.arange(len(images)) if studies is None else np.asarray(studies, np.int64))[drawn],
    )


@dataclass(frozen=True)
class _Rows:
    scalars: Mapping[str, FloatArray]
    embedding: FloatArray
    probabilities: FloatArray


def _batches(indices: IntArray) -> Sequence[IntArray]:
    return [indices[start : start + BATCH] for start in range(0, len(indices), BATCH)]


def _measure(engine: ReferenceEngine, images: NDArray[np.uint8]) -> _Rows:
    output = engine(images)
    augmented = softmax(engine(moved_by_one_pixel(images)).logits)
    layers = {
        "data": data_statistics(images),
        "decision": decision_statistics(output.logits, augmented),
        "activation": activation_statistics(output.blocks),
    }
    return _Rows(
        scalars={
            f"{layer}.{name}": values
            for layer, layer_values in layers.items()
            for name, values in layer_values.items()
        },
        embedding=output.embedding,
        probabilities=softmax(output.logits),
    )
