"""Whether a model is right as often as it says, and what sets it right: one temperature, or new priors.

Without torch, since the publisher judges by it.

Shape suffixes: B image · N class · M bin · D draw
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medloop_model.errors import ShapeError

Floats = NDArray[np.floating]

BINS = 15
COOLEST, HOTTEST = 0.05, 20.0
"""Bounds of a temperature: where every answer is right, the best one would be 0."""
_HALVINGS = 60
_EM_STEPS = 1000
_EM_TOLERANCE = 1e-9


def calibration_gaps(probabilities_BN: Floats, labels_B: NDArray[np.integer]) -> NDArray[np.float64]:
    """Each image's (right − confidence), in the column of its confidence's bin: float64 (B, M).

    The bins are `BINS` equal steps of confidence, ((m−1)/M, m/M]. Of their sums the calibration error is
    made, of all images or of a bootstrap's draws.

    Args:
        probabilities_BN: each row sums to 1.
        labels_B: true classes; one that the model does not have is N or more, and never found.

    Raises:
        ShapeError: not one label a row.
    """
    if probabilities_BN.ndim != 2 or len(probabilities_BN) != len(labels_B):
        raise ShapeError(f"{len(labels_B)} labels don't fit probabilities {probabilities_BN.shape}")
    confidence_B = probabilities_BN.max(axis=1).astype(np.float64) if len(labels_B) else np.zeros(0)
    right_B = probabilities_BN.argmax(axis=1) == labels_B if len(labels_B) else np.zeros(0, np.bool_)
    bin_B = np.clip(np.ceil(confidence_B * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps_BM = np.zeros((len(labels_B), BINS))
    gaps_BM[np.arange(len(labels_B)), bin_B] = right_B - confidence_B
    return gaps_BM


def expected_calibration_error(
    probabilities_BN: Floats, labels_B: NDArray[np.integer], draws_DB: NDArray[np.integer] | None = None
) -> NDArray[np.float64]:
    """Σ |B_m|/n · |acc(B_m) − conf(B_m)| (Guo et al., arXiv 1706.04599, eq. 3); nan of no image.

    It is biased upwards on few images: each bin's chance deviation counts as an error.

    Args:
        probabilities_BN, labels_B: as `calibration_gaps`.
        draws_DB: how often each image counts; once each unless given.

    Returns:
        float64 (D,), one a draw; (1,) without draws.

    Raises:
        ShapeError: not one label a row.
    """
    if draws_DB is None:
        draws_DB = np.ones((1, len(labels_B)), np.int64)
    gaps_DM = draws_DB @ calibration_gaps(probabilities_BN, labels_B)
    count_D = draws_DB.sum(axis=1)
    error_D: NDArray[np.float64] = np.full(len(draws_DB), np.nan)
    np.divide(np.abs(gaps_DM).sum(axis=1), count_D, out=error_D, where=count_D > 0)
    return error_D


def fit_temperature(
    logits_BN: Floats, labels_B: NDArray[np.integer], weight_B: Floats | None = None
) -> float:
    """The T > 0 by which logits are divided so that the labels are likeliest (arXiv 1706.04599, eq. 9).

    The negative log-likelihood is convex in 1/T; its slope, Σ (E_p[z] − z_y), is 0 at the best, which is
    found by halving between `COOLEST` and `HOTTEST`.

    Args:
        logits_BN: of images that the model was not trained on.
        labels_B: true classes.
        weight_B: how much each image counts, 0 or more; all alike unless given.

    Raises:
        ShapeError: no labels, not one a row, or one that the model does not have.
    """
    known = labels_B.size and logits_BN.shape[:1] == labels_B.shape
    if not known or not 0 <= labels_B.min() <= labels_B.max() < logits_BN.shape[1]:
        raise ShapeError("a temperature needs logits of labelled images, each of a class of the model")
    logits_BN = logits_BN.astype(np.float64)
    logits_BN = logits_BN - logits_BN.max(axis=1, keepdims=True)
    truth_B = logits_BN[np.arange(len(labels_B)), labels_B]
    weight_B = np.ones(len(labels_B)) if weight_B is None else weight_B
    low, high = np.log(1 / HOTTEST), np.log(1 / COOLEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        raised_BN = np.exp(logits_BN * np.exp(middle))
        expected_B = (raised_BN * logits_BN).sum(axis=1) / raised_BN.sum(axis=1)
        low, high = (low, middle) if float(weight_B @ (expected_B - truth_B)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def estimate_priors(probabilities_BN: Floats, old_priors_N: Floats) -> NDArray[np.float64]:
    """How often each class comes now, by a model's answers alone: float64 (N,), sums to 1.

    Expectation-maximisation of the unlabelled images' likelihood (Saerens, Latinne and Decaestecker, Neural
    Computation 14, 2002, p. 21, section 2.2): answers are corrected for the priors (their eq. 2.4), and the
    mean of the corrected answers is the next estimate. One image of each class is added at the end, so that
    a class that did not come is not ruled out for good.

    Args:
        probabilities_BN: answers to images that come now, calibrated as well as may be.
        old_priors_N: the priors that the answers assume; each above 0.

    Raises:
        ShapeError: no answers, or not one prior a class, or one that is not above 0.
    """
    if not len(probabilities_BN) or probabilities_BN.shape[1:] != old_priors_N.shape:
        raise ShapeError(f"{probabilities_BN.shape} answers don't fit {len(old_priors_N)} priors")
    if old_priors_N.min() <= 0:
        raise ShapeError(f"each prior must be above 0, got {old_priors_N.tolist()}")
    answers_BN = probabilities_BN.astype(np.float64)
    priors_N = old_priors_N / old_priors_N.sum()
    likelihood_BN = answers_BN / priors_N
    for _ in range(_EM_STEPS):
        weighted_BN = likelihood_BN * priors_N
        corrected_BN = weighted_BN / weighted_BN.sum(axis=1, keepdims=True)
        before_N, priors_N = priors_N, corrected_BN.mean(axis=0)
        if np.abs(priors_N - before_N).max() < _EM_TOLERANCE:
            break
    count, classes = probabilities_BN.shape
    estimated_N: NDArray[np.float64] = (count * priors_N + 1) / (count + classes)
    return estimated_N
