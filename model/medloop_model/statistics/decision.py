"""Decision layer: how sure a model is of its answer, and whether a harmless change of the image moves it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def softmax(logits: FloatArray) -> FloatArray:
    """Return the probabilities (B, n) of logits (B, n); each row sums to 1."""
    raised = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: FloatArray = raised / raised.sum(1, keepdims=True)
    return probabilities


def decision_statistics(logits: FloatArray, augmented_probabilities: FloatArray) -> dict[str, FloatArray]:
    """Return each image's decision-layer statistics, float32 (B,) each.

    Args:
        logits: float32 (B, n), n ≥ 1 classes.
        augmented_probabilities: float32 (B, n), the model's answer to the lightly augmented image.
    """
    probabilities = softmax(logits)
    ascending = np.sort(probabilities, axis=1)
    runner_up = ascending[:, -2] if logits.shape[1] > 1 else np.zeros(len(logits), np.float32)
    highest = logits.max(1)
    energy = -(highest + np.log(np.exp(logits - highest[:, np.newaxis]).sum(1)))  # Liu et al. 2020, eq. 4
    statistics = {
        "entropy": -np.sum(probabilities * np.log(np.maximum(probabilities, 1e-12)), axis=1),
        "margin": ascending[:, -1] - runner_up,
        "energy": energy,
        "inconsistency": np.abs(probabilities - augmented_probabilities).sum(1),
    }
    return {name: values.astype(np.float32) for name, values in statistics.items()}
