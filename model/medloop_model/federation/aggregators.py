"""Several sites' updates to one: pure functions of arrays, one tensor a name."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import ceil

import numpy as np
from medloop_kernels import absmean_ternary
from numpy.typing import NDArray

from medloop_model.checkpoint import Tensors

TIE = 1e-9
"""How far from 1/2 a vote may be for rounding's sake alone."""


class Aggregator(StrEnum):
    """How updates are merged."""

    WEIGHTED_MEAN = "weighted-mean"
    TRIMMED_MEAN = "trimmed-mean"
    SOFT_VOTE = "soft-vote"


def weighted_mean(tensors: Sequence[Tensors], weights: Sequence[float]) -> Tensors:
    """Σ n_k·Δ_k / Σ n_k (FedAvg: McMahan et al., arXiv 1602.05629, algorithm 1).

    Args:
        tensors: one set a site, all of the same names and shapes.
        weights: n_k > 0, one a site.

    Returns:
        float32, summed in float64.
    """
    shares = np.asarray(weights, np.float64) / np.sum(weights)
    return {
        name: np.tensordot(shares, _stacked(tensors, name), axes=1).astype(np.float32) for name in tensors[0]
    }


def trimmed_mean(tensors: Sequence[Tensors], share: float) -> Tensors:
    """Each number's mean without its largest and smallest β (Yin et al., arXiv 1803.01498, definition 2).

    ⌈β·K⌉ of K sites are left out at either end, but never so many that none is left; so many sites may send
    what they like, and the result stays within the others' range. All sites count alike.

    Args:
        tensors: one set a site, all of the same names and shapes.
        share: β, at least 0 and less than 1/2.

    Returns:
        float32, summed in float64.
    """
    left_out = min(ceil(share * len(tensors)), (len(tensors) - 1) // 2)
    kept = slice(left_out, len(tensors) - left_out)
    return {
        name: np.sort(_stacked(tensors, name), axis=0)[kept].mean(axis=0).astype(np.float32)
        for name in tensors[0]
    }


def soft_vote(weights_OI: Sequence[NDArray[np.float32]], votes: Sequence[float]) -> NDArray[np.float32]:
    """Sites vote on each ternary code; the latent weight says how clearly (FedVote, arXiv 2110.02998).

    The soft vote is m = Σ n_k·code_k / Σ n_k in [−1, 1]. FedVote's latent weight is φ⁻¹(m) with φ = tanh.
    Ours has to have m's rounding as its absmean code, so φ⁻¹ is piecewise linear: m up to ±1/2, and steeper
    beyond, such that the latent weights' mean magnitude, which they are divided by when they are rounded,
    is 1. They are then scaled by the sites' mean γ. No site's word counts more than its vote.

    Args:
        weights_OI: one site's latent weights each.
        votes: n_k > 0, one a site.

    Returns:
        Latent weights whose absmean ternary codes are the rounded votes, a tie's being 0; so too in float16.
    """
    ternary = [absmean_ternary(np.ascontiguousarray(weight_OI, np.float32)) for weight_OI in weights_OI]
    shares = np.asarray(votes, np.float64) / np.sum(votes)
    vote_OI = np.tensordot(shares, np.stack([codes for codes, _ in ternary]).astype(np.float64), axes=1)
    scale = float(shares @ np.array([scale for _, scale in ternary], np.float64))
    size_OI = np.abs(vote_OI)
    # A tie is no code's; just below the border, lest float16 round it to either side, a whole layer at once.
    won_OI = size_OI > 0.5 + TIE
    within_OI = np.where(won_OI, 0.5, size_OI.clip(max=0.49))
    beyond_OI = np.where(won_OI, size_OI - 0.5, 0.0)
    steepness = (1 - within_OI.mean()) / max(float(beyond_OI.mean()), 1e-12)
    latent_OI: NDArray[np.float32] = np.sign(vote_OI) * (within_OI + steepness * beyond_OI) * scale
    return latent_OI.astype(np.float32)


def _stacked(tensors: Sequence[Tensors], name: str) -> NDArray[np.float64]:
    return np.stack([each[name] for each in tensors]).astype(np.float64)
