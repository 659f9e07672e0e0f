"""Prior shift: the mix of classes moves, against the device's own past and with its own dependence.

A ward is not the reference: what its mix is, is learned from its first images and not held against it. And
neighbours are alike (one ward's patients arrive together), so that n images say as much as n / τ independent
ones. τ is estimated, not assumed: the classes are taken to stay with probability ρ and to be drawn anew from
the mix otherwise, a hidden Markov chain of which the predicted classes are a noisy view. Its forward
algorithm (Rabiner 1989, eq. 20), with the reference's confusion matrix for the noise, weighs a grid of ρ by
what was seen; τ = Σ w(ρ) (1 + ρ) / (1 − ρ).

For each split of the past, the mean answer before is compared with the mean since (Hawkins 1977):
z = (x̄_since − x̄_before) / √(V (1/n_since + 1/n_before)),  V = Σ_y π_y (v_y + τ (m_y − m̄)²)
with m_y and v_y the mean and the variance of the answer to reference images of class y: only what is between
the classes is dependent. The statistic is the largest |z| of any split and class.

Shapes beyond those of `detector.py`: j values of ρ, r blocks of images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from medloop_schemas import Layer
from numpy.typing import NDArray

from medloop_services.drift_detection.detectors.detector import (
    Channels,
    Detector,
    FloatArray,
    Images,
    Memory,
    uncalibrated,
)

STAYS = np.array([0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.975, 0.99])
"""Values of ρ."""

FORGETTING = 0.998
"""Of the evidence for each ρ, an image: what was thought of the mix at first is forgotten."""

MIX_MEMORY = 512
"""Images that the running estimate of the mix averages over."""

FIRST_GUESS_IMAGES = 8
"""Weight of the uniform mix that it starts with."""

BLOCK, BLOCKS = 16, 64
"""Images of a block at least, and blocks before which a change may lie."""

FEWEST_BEFORE, FEWEST_SINCE = 48, 8
"""Independent images' worth that a split needs on either side."""

SMALLEST_VARIANCE = 1e-3


@dataclass(frozen=True)
class ClassMix(Detector):
    """The largest split statistic of the mean answer.

    Attributes:
        confusion: (c, c), how often each class is predicted (columns) of images of a class (rows).
        means, variances: (c, c): of the answer (columns) to images of a class (rows).
    """

    confusion: FloatArray
    means: FloatArray
    variances: FloatArray

    @classmethod
    def fitted(cls, reference: Images, labels: NDArray[np.int64]) -> ClassMix:
        """Return one that knows how the model answers to each class.

        Args:
            reference: n images as one stream.
            labels: (n,) their classes; one without images is taken to be answered with certainty.
        """
        answers = reference.probabilities[0]
        classes = answers.shape[1]
        means, variances = np.eye(classes), np.zeros((classes, classes))
        for label in range(classes):
            if (labels == label).any():
                means[label], variances[label] = (
                    answers[labels == label].mean(0),
                    answers[labels == label].var(0),
                )
        channels = Channels.single(Layer.DECISION, "class_mix")
        confusion = _confusion(answers.argmax(1), labels, classes)
        return cls("prior", channels, uncalibrated(channels), confusion, means, variances)

    def start(self, streams: int) -> Memory:
        """Return a uniform mix, every ρ as likely, and no blocks."""
        classes = len(self.confusion)
        return {
            "belief": np.full((streams, len(STAYS), classes), 1 / classes),
            "evidence": np.zeros((streams, len(STAYS))),
            "mix": np.full((streams, classes), 1 / classes),
            "images": np.zeros((streams, 1)),
            "sums": np.zeros((streams, BLOCKS + 2, classes)),
            "counts": np.zeros((streams, BLOCKS + 2)),
        }

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return the memory after a micro-batch.

        `sums` and `counts` have a row for all that is too old, then the blocks, of which the last is filled.
        """
        belief, evidence, mix = memory["belief"], memory["evidence"], memory["mix"]
        likelihoods = self.confusion.T[images.probabilities.argmax(2)]  # (s, b, c)
        seen = memory["images"]
        for index in range(len(images)):
            likelihood = likelihoods[:, index]
            joint = (STAYS[:, np.newaxis] * belief + (1 - STAYS)[:, np.newaxis] * mix[:, np.newaxis]) * (
                likelihood[:, np.newaxis]
            )
            total = joint.sum(2)
            belief, evidence = joint / total[..., np.newaxis], FORGETTING * evidence + np.log(total)
            posterior = mix * likelihood
            seen = seen + 1
            weight = 1 / np.minimum(FIRST_GUESS_IMAGES + seen, MIX_MEMORY)
            mix = mix + weight * (posterior / posterior.sum(1, keepdims=True) - mix)
        sums, counts = memory["sums"].copy(), memory["counts"].copy()
        sums[:, -1] += images.probabilities.sum(1)
        counts[:, -1] += len(images)
        if counts[0, -1] >= BLOCK:
            sums, counts = _with_a_new_block(sums), _with_a_new_block(counts)
        return {
            "belief": belief,
            "evidence": evidence,
            "mix": mix,
            "images": seen,
            "sums": sums,
            "counts": counts,
        }

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return the largest |z|."""
        largest: FloatArray = self._deviations(memory).max(1, keepdims=True)
        return largest

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return how many images the best split leaves behind it."""
        split = int(self._deviations(memory)[0].argmax())
        return max(1, int(memory["counts"][0, split + 1 :].sum()))

    def dependence(self, memory: Memory) -> FloatArray:
        """Return τ of each stream, (s,): how many images say as much as an independent one."""
        weights = np.exp(memory["evidence"] - memory["evidence"].max(1, keepdims=True))
        dependence: FloatArray = weights @ ((1 + STAYS) / (1 - STAYS)) / weights.sum(1)
        return dependence

    def _deviations(self, memory: Memory) -> FloatArray:
        """Return (s, BLOCKS + 1), a split after each row: the largest |z| of the classes, 0 if too short."""
        before, sums = memory["counts"].cumsum(1)[:, :-1], memory["sums"].cumsum(1)
        since = memory["counts"].sum(1, keepdims=True) - before
        usable = (
            np.minimum(before / FEWEST_BEFORE, since / FEWEST_SINCE) >= self.dependence(memory)[:, np.newaxis]
        )
        before, since = np.maximum(before, 1), np.maximum(since, 1)
        difference = (sums[:, -1:] - sums[:, :-1]) / since[..., np.newaxis] - sums[:, :-1] / before[
            ..., np.newaxis
        ]
        error = np.sqrt((1 / before + 1 / since)[..., np.newaxis] * self._variance(memory)[:, np.newaxis])
        deviations: FloatArray = np.where(usable, np.abs(difference / error).max(2), 0)
        return deviations

    def _variance(self, memory: Memory) -> FloatArray:
        """Return V of each stream and class, (s, c)."""
        mix, dependence = memory["mix"], self.dependence(memory)
        within = mix @ self.variances
        between = mix @ self.means**2 - (mix @ self.means) ** 2
        return np.maximum(within + dependence[:, np.newaxis] * between, SMALLEST_VARIANCE)


def _confusion(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> FloatArray:
    """Return the confusion matrix; each class counts one image more, that is answered as all images are."""
    overall = (np.bincount(predicted, minlength=classes) + 1) / (len(predicted) + classes)
    counts = np.stack(
        [np.bincount(predicted[labels == label], minlength=classes) for label in range(classes)]
    )
    confusion: FloatArray = (counts + overall) / (counts.sum(1, keepdims=True) + 1)
    return confusion


def _with_a_new_block(rows: FloatArray) -> FloatArray:
    """Return rows in which the oldest block has joined what is older, and an empty one is last."""
    moved = np.roll(rows, -1, axis=1)
    moved[:, 0] = rows[:, 0] + rows[:, 1]
    moved[:, -1] = 0
    return moved
