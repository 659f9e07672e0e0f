"""Elastic weight consolidation: what mattered at home moves least (Kirkpatrick et al., arXiv 1612.00796).

The Fisher information is taken on the latent weights through the straight-through estimator, since those are
what training moves, and on gains, norms, biases, positions and head alike. It is normalised to mean 1, so
that λ means the same for every model, and clamped, so that no single weight is nailed down.

λ's pull on a weight is 2λF_i·(θ_i − θ_old,i): with mean 1 it depends neither on how many images F was
measured on, nor on how sure the model is, nor on how many other weights or classes there are.

Shape suffixes: B batch · H, W image rows, columns · C channels · N classes ·
K directions: N − 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from medloop_model.errors import ShapeError, UnfitFisher
from medloop_model.network import BiTMedViT
from medloop_model.training.squared_gradients import ForwardPass

MOST_FISHER = 100.0  # times the mean

BATCH = 32
"""Images in one pass: fewer and small operations dominate, more and the caches overflow."""

Progress = Callable[[int, int], None]
"""Called after every batch with images done and images in all."""


def fisher_diagonal(
    network: BiTMedViT, pixels_BHWC: Tensor, generator: torch.Generator, progress: Progress | None = None
) -> dict[str, Tensor]:
    """E_x Σ_y p(y|x)·(∂ log p(y|x) / ∂θ)² (arXiv 1612.00796, §2), one backward pass an image.

    Drawing one y an image, as is usual, takes four times the images for the same error (PneumoniaMNIST): of a
    model that is sure, most information lies in answers that are hardly ever drawn. None is drawn here.
    At the logits the expectation of the gradient's outer product is diag(p) − p·pᵀ (Martens, arXiv
    1412.1193), of rank N − 1, and so is Σ_k d_k·d_kᵀ. Back-propagated together, each d_k with a sign drawn at
    random, these directions give the sum over all answers: exactly with two classes, which leave one
    direction, and in expectation with more (curvature propagation: Martens et al., arXiv 1206.6464).

    Args:
        network: whose latent weights are judged; left as it is.
        pixels_BHWC: representative images of the old domain, in [0, 1].
        generator: draws the signs.
        progress: told about every batch.

    Returns:
        One tensor a parameter, of its dtype and shape, not normalised.

    Raises:
        ShapeError: there is no image.
        UnfitFisher: the network's answer to an image isn't finite.
    """
    if not len(pixels_BHWC):
        raise ShapeError("Fisher information needs at least one image")
    fisher = {name: torch.zeros_like(parameter) for name, parameter in network.named_parameters()}
    done = 0
    for batch_BHWC in torch.split(pixels_BHWC, BATCH):
        forward = ForwardPass(network, batch_BHWC)
        if not forward.logits_BN.isfinite().all():
            raise UnfitFisher("the network's answers aren't finite; its weights are damaged")
        direction_BN = _direction(forward.logits_BN.detach(), generator)
        for name, square in forward.squares(direction_BN).items():
            fisher[name] += square / len(pixels_BHWC)
        done += len(batch_BHWC)
        if progress is not None:
            progress(done, len(pixels_BHWC))
    return fisher


def _direction(logits_BN: Tensor, generator: torch.Generator) -> Tensor:
    """Σ_k ±d_k (B, N), where Σ_k d_k·d_kᵀ = diag(p) − p·pᵀ, each sign drawn at random."""
    p_BN = logits_BN.double().softmax(dim=1)  # sure answers differ from 1 in digits that float32 lacks
    covariance_BNN = torch.diag_embed(p_BN) - p_BN[:, :, None] * p_BN[:, None, :]
    value_BN, vector_BNN = torch.linalg.eigh(covariance_BNN)
    # The first of each is left out: its value is 0, since adding the same to all logits changes no answer.
    spread_BK = value_BN[:, 1:].clamp(min=0).sqrt()
    sign_BK = 2 * torch.randint(0, 2, spread_BK.shape, generator=generator) - 1
    direction_BN: Tensor = torch.einsum("bnk,bk->bn", vector_BNN[:, :, 1:], sign_BK * spread_BK)
    return direction_BN.to(logits_BN.dtype)


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
