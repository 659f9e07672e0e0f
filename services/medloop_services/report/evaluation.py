"""How right a model is on a labelled set: accuracy, balanced accuracy, AUC, per class, with intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from medloop_model.bootstrap import Interval
from medloop_model.engine import Engine
from medloop_model.statistics import softmax

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

BATCH = 64
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's figures on one labelled set of n images, all in [0, 1], with 95 % bootstrap intervals."""

    n: int
    accuracy: Interval
    balanced_accuracy: Interval
    auc: float | None
    recall: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return plain types, for orjson."""
        return asdict(self)


def predict(engine: Engine, images: Images) -> npt.NDArray[np.float32]:
    """Return the class probabilities (B, n) of images (B, H, W) or (B, H, W, 3)."""
    logits = np.concatenate([engine(images[i : i + BATCH]).logits for i in range(0, len(images), BATCH)])
    return softmax(logits)


def evaluate(engine: Engine, images: Images, labels: Labels, class_names: tuple[str, ...]) -> Evaluation:
    """Measure an engine on images (N, …) with labels (N,); a class that the model lacks counts as wrong."""
    return score(predict(engine, images), labels, class_names)


def score(
    probabilities: npt.NDArray[np.float32], labels: Labels, class_names: tuple[str, ...], seed: int = 0
) -> Evaluation:
    """Measure probabilities (N, n) against labels (N,); intervals from seeded bootstrap draws."""
    predicted = probabilities.argmax(axis=1)
    correct = predicted == labels
    members = labels == np.unique(labels)[:, None]
    draws = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), DRAWS)
    with np.errstate(invalid="ignore"):  # a draw without any image of a class has no recall for it
        recalls = (draws @ (members & correct).T) / (draws @ members.T)
    return Evaluation(
        n=len(labels),
        accuracy=Interval.of(float(correct.mean()), draws @ correct / len(labels)),
        balanced_accuracy=Interval.of(balanced_accuracy(predicted, labels), np.nanmean(recalls, axis=1)),
        auc=_auc(probabilities, labels),
        recall={_name(class_names, int(c)): float(correct[labels == c].mean()) for c in np.unique(labels)},
    )


def balanced_accuracy(predicted: npt.NDArray[np.int64], labels: Labels) -> float:
    """Return the mean over the classes present of the share that is recognised."""
    return float(np.mean([(predicted[labels == c] == c).mean() for c in np.unique(labels)]))


def _name(class_names: tuple[str, ...], index: int) -> str:
    return class_names[index] if index < len(class_names) else f"class {index}"


def _auc(probabilities: npt.NDArray[np.float32], labels: Labels) -> float | None:
    """Mean one-against-rest area under the ROC curve (Mann-Whitney U); None where a class is missing."""
    areas = []
    for index in range(probabilities.shape[1]):
        positive = labels == index
        if positive.all() or not positive.any():
            return None
        ranks = _average_ranks(probabilities[:, index])
        pairs = positive.sum() * (~positive).sum()
        areas.append((ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / pairs)
    return float(np.mean(areas))


def _average_ranks(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Ranks from 1, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = ((2 * last - counts + 1) / 2)[inverse]
    return ranks
