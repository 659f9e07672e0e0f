"""Elastic weight consolidation: what mattered at home moves least (Kirkpatrick et al., arXiv 1612.00796).

The Fisher information is taken on the latent weights through the straight-through estimator, since those are
what training moves. It is normalised to mean 1, so that λ means the same for every model, and clamped, so
that no single weight is nailed down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from medloop_model.network import BiTMedViT

MOST_FISHER = 100.0  # times the mean


def fisher_diagonal(network: BiTMedViT, pixels_BHWC: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """E[(∂ log p(y|x) / ∂θ)²] with y drawn from the model itself (arXiv 1612.00796, eq. 3 and below).

    Args:
        network: whose latent weights are judged; left as it is.
        pixels_BHWC: representative images of the old domain.
        generator: draws the labels.

    Returns:
        One tensor a parameter, float32, same shape, not normalised.
    """
    parameters = dict(network.named_parameters())
    fisher = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for pixels_1HWC in torch.split(pixels_BHWC, 1):
        logits_1N = network(pixels_1HWC)
        label_1 = torch.multinomial(logits_1N.detach().softmax(dim=1), 1, generator=generator)[:, 0]
        gradients = torch.autograd.grad(
            functional.cross_entropy(logits_1N, label_1), list(parameters.values())
        )
        for name, gradient in zip(fisher, gradients, strict=True):
            fisher[name] += gradient**2 / len(pixels_BHWC)
    return fisher


def normalise_fisher(fisher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scale to mean 1 over all weights, then clamp to `MOST_FISHER`."""
    mean = sum(float(f.double().sum()) for f in fisher.values()) / sum(f.numel() for f in fisher.values())
    return {name: (f / max(mean, 1e-30)).clamp(max=MOST_FISHER) for name, f in fisher.items()}


def merge_fisher(
    running: Mapping[str, Tensor], recent: Mapping[str, Tensor], decay: float
) -> dict[str, Tensor]:
    """γ·running + (1−γ)·recent: online EWC's running Fisher (Schwarz et al., arXiv 1805.06370, §3.2).

    Rows that only the recent one has (classes added since) are taken from it.
    """
    merged = {}
    for name, new in recent.items():
        result = new.clone()
        old = running[name]
        known = tuple(slice(0, length) for length in old.shape)
        result[known] = decay * old + (1 - decay) * new[known]
        merged[name] = result
    return merged


def ewc_penalty(
    parameters: Iterable[tuple[str, Tensor]], anchor: Mapping[str, Tensor], fisher: Mapping[str, Tensor]
) -> Tensor:
    """Σ F_i·(θ_i − θ_old,i)² over the given parameters; λ is the caller's (arXiv 1612.00796, eq. 3)."""
    terms = [(fisher[name] * (parameter - anchor[name]) ** 2).sum() for name, parameter in parameters]
    return torch.stack(terms).sum() if terms else torch.zeros(())
