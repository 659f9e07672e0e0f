"""Calibration put into a model: a temperature or new priors, folded into the head, so that the engine needs
no change.

What to fit a temperature to? Not what was trained on: a model is surer of that than of anything else. A
learner keeps no labels back, but each mini-batch is answered before it is trained on (prequential, or
test-then-train: Gama, Sebastião and Rodrigues, Machine Learning 90, 2013). Those answers are honest, if of a
model that knew less; so only the last ones count, and none to an image whose study was seen before. They
still soften too much: so a candidate is softened only where held-out studies show that its calibration is
ruined, since softening every one did more harm than good (data drift on PneumoniaMNIST, 3 streams).

Shape suffixes: B image · N class
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medloop_model.calibration import fit_temperature
from medloop_model.checkpoint import ModelPackage
from medloop_model.errors import ShapeError
from medloop_model.network import BiTMedViT
from medloop_model.training.export import export_package, network_from

FEWEST_ANSWERS, LAST_ANSWERS = 64, 128
"""Of a stream, that a temperature is fitted to: fewer leave it to chance, older ones are another model's."""
FEWEST_LABELS = 32
"""That a temperature of a model that was not trained is fitted to."""
RULED_OUT = 3.841
"""95 % quantile of χ² with one degree of freedom."""
PRIORS = "priors"
"""Key in a package's provenance: how often each class comes, as its answers assume."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said of images before it was taught them, the oldest first.

    Args:
        logits: float32 (B, N).
        labels: int64 (B,), what readers said.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def none(cls, classes: int) -> Answers:
        """Nothing answered yet."""
        return cls(np.zeros((0, classes), np.float32), np.zeros(0, np.int64))

    def joined(self, later: Answers) -> Answers:
        """These and later ones, as many as a temperature needs."""
        both = Answers(
            np.concatenate([self.logits, later.logits]), np.concatenate([self.labels, later.labels])
        )
        return both.last(2 * LAST_ANSWERS)

    def last(self, count: int) -> Answers:
        """The last ones, `count` at most."""
        start = max(0, len(self) - count)
        return Answers(self.logits[start:], self.labels[start:])


def temperature_of(answers: Answers) -> float:
    """The temperature by which a model that streamed these answers is to be softened; 1 leaves it as it is.

    Fitted to the second half of the answers, at most `LAST_ANSWERS`: the first ones are the base model's.
    Taken only where they rule out 1: by the likelihood ratio, 95 % (Wilks 1938, one degree of freedom). Never
    below 1: training makes a model too sure of itself, and where a few answers happen to be right throughout,
    sharpening by them did harm.
    """
    late = answers.last(min(LAST_ANSWERS, len(answers) // 2))
    if len(late) < FEWEST_ANSWERS:
        return 1.0
    temperature = fit_temperature(late.logits, late.labels)
    ratio = 2 * (_surprise(late, 1.0) - _surprise(late, temperature))
    return temperature if temperature > 1 and ratio > RULED_OUT else 1.0


def _surprise(answers: Answers, temperature: float) -> float:
    """Negative log-likelihood of the labels."""
    logits_BN = answers.logits.astype(np.float64) / temperature
    highest_B = logits_BN.max(axis=1)
    total_B = highest_B + np.log(np.exp(logits_BN - highest_B[:, None]).sum(axis=1))
    return float((total_B - logits_BN[np.arange(len(answers)), answers.labels]).sum())


@torch.no_grad()
def soften(network: BiTMedViT, temperature: float) -> None:
    """Divide a network's logits by a temperature, in place: its classes stay the same.

    Raises:
        ShapeError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ShapeError(f"a temperature is above 0, not {temperature}")
    # A ternary head's codes don't change with its scale, so this holds for one too.
    network.head.weight.div_(temperature)
    network.head.bias.div_(temperature)


@torch.no_grad()
def shift_priors(network: BiTMedViT, old_N: NDArray[np.floating], new_N: NDArray[np.floating]) -> None:
    """Move a network's answers from old priors to new ones, in place: b_N += log(new_N / old_N).

    The softmax of shifted logits is Saerens et al.'s correction (Neural Computation 14, 2002, eq. 2.4).

    Raises:
        ShapeError: not one prior a class, or one that is not above 0.
    """
    if old_N.shape != new_N.shape or new_N.shape != tuple(network.head.bias.shape):
        raise ShapeError(f"{len(old_N)} old and {len(new_N)} new priors don't fit the model's classes")
    if min(old_N.min(), new_N.min()) <= 0:
        raise ShapeError("each prior must be above 0")
    network.head.bias.add_(torch.from_numpy(np.log(new_N / old_N)).float())


def assumed_priors(package: ModelPackage) -> NDArray[np.float64]:
    """The priors that a package's answers assume: those it was given, else even ones (N,).

    Training draws every class equally often, whatever comes.
    """
    classes = len(package.architecture.classes)
    given = package.provenance.get(PRIORS)
    if isinstance(given, Collection) and len(given) == classes:
        return np.array([float(prior) for prior in given])
    return np.full(classes, 1 / classes)


def temperature_of_base(
    package: ModelPackage, logits_BN: NDArray[np.floating], labels_B: NDArray[np.int64]
) -> float:
    """The temperature of a model that was not trained on these labels, in the mix that its answers assume.

    Args:
        package: the model.
        logits_BN: its logits.
        labels_B: int64, what readers said; 1 is returned where they are fewer than `FEWEST_LABELS`.
    """
    if len(labels_B) < FEWEST_LABELS:
        return 1.0
    counts_N = np.bincount(labels_B, minlength=logits_BN.shape[1])
    weight_N = assumed_priors(package) / np.maximum(counts_N, 1)
    return fit_temperature(logits_BN, labels_B, weight_N[labels_B])


def recalibrated(
    package: ModelPackage, *, temperature: float = 1.0, priors_N: NDArray[np.float64] | None = None
) -> ModelPackage:
    """A package whose head is softened by a temperature, then moved to new priors.

    Args:
        package: with its latent weights; Fisher information and reference are passed on as they are.
        temperature: 1 changes nothing.
        priors_N: how often each class comes now, or None to keep what is assumed.

    Raises:
        ShapeError: a temperature or prior that is not above 0, or not one prior a class.
        UnsupportedArchitecture: the latent weights aren't those of the architecture.
    """
    network = network_from(package)
    soften(network, temperature)
    provenance = dict(package.provenance) | {"temperature": temperature}
    if priors_N is not None:
        shift_priors(network, assumed_priors(package), priors_N)
        provenance[PRIORS] = priors_N.tolist()
    return export_package(network, provenance, package.fisher, package.reference)
