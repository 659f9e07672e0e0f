"""The reference: what all four layers look like before anything drifts. It travels in the package.

Shapes: n reference images, m of them with embeddings, d embedding width, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
EMBEDDING_IMAGES = 256
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
        embedding: float32 (m, d), the first m images' embeddings.
        predicted: int64 (n,), the model's class of each image.
        wrong: bool (n,), whether the reader disagrees.
        class_mix: float32 (k,), share of each predicted class.
    """

    scalars: Mapping[str, FloatArray]
    embedding: FloatArray
    predicted: IntArray
    wrong: NDArray[np.bool_]
    class_mix: FloatArray

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
            "predicted": self.predicted.astype(np.int32),
            "wrong": self.wrong.astype(np.uint8),
            "class_mix": self.class_mix.astype(np.float32),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Reference:
        """Return the reference whose `to_tensors()` these are.

        Raises:
            ValueError: a tensor is missing, or they disagree on the number of images.
        """
        missing = {"embedding", "predicted", "wrong", "class_mix"} - set(tensors)
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
        predicted = np.asarray(tensors["predicted"], np.int64)
        if {len(values) for values in scalars.values()} != {len(predicted)}:
            raise ValueError("the monitoring reference's scalars and predictions differ in length")
        return cls(
            scalars=scalars,
            embedding=np.asarray(tensors["embedding"], np.float32),
            predicted=predicted,
            wrong=np.asarray(tensors["wrong"]).astype(np.bool_),
            class_mix=np.asarray(tensors["class_mix"], np.float32),
        )


def measure_reference(
    engine: ReferenceEngine,
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    seed: int = 0,
) -> Reference:
    """Measure a model on images that it was not trained on.

    Args:
        engine: the model.
        images: uint8 (N, H, W) or (N, H, W, C); at most 512 are drawn, without replacement.
        labels: (N,) class indices; one that the model does not have counts as wrong.
        seed: of the draw.

    Raises:
        ValueError: no images, or not one label an image.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(
            f"a reference needs one label an image, got {len(images)} images, {len(labels)} labels"
        )
    drawn = np.random.default_rng(seed).permutation(len(images))[:REFERENCE_IMAGES]
    rows = [_measure(engine, images[part]) for part in _batches(drawn)]
    predicted = np.concatenate([row.predicted for row in rows])
    return Reference(
        scalars={name: np.concatenate([row.scalars[name] for row in rows]) for name in rows[0].scalars},
        embedding=np.concatenate([row.embedding for row in rows])[:EMBEDDING_IMAGES],
        predicted=predicted,
        wrong=predicted != np.asarray(labels).reshape(-1)[drawn],
        class_mix=(np.bincount(predicted, minlength=len(engine.classes)) / len(predicted)).astype(np.float32),
    )


@dataclass(frozen=True)
class _Rows:
    scalars: Mapping[str, FloatArray]
    embedding: FloatArray
    predicted: IntArray


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
        predicted=output.logits.argmax(1).astype(np.int64),
    )
