"""How often a model is right: over all images, and class by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def accuracy(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Share of images whose class was found; nan for none.

    Args:
        predicted: class of each image, (n,).
        labels: true class of each image, (n,).
    """
    return float(np.mean(predicted == labels)) if len(labels) else float("nan")


def class_recalls(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> dict[int, float]:
    """Share found of each class that occurs in labels, by class index."""
    return {int(label): float(np.mean(predicted[labels == label] == label)) for label in np.unique(labels)}


def balanced_accuracy(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Mean of the recalls of the classes that occur in labels; nan for none."""
    recalls = class_recalls(predicted, labels)
    return float(np.mean(list(recalls.values()))) if recalls else float("nan")
