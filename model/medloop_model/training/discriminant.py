"""A head in closed form: linear discriminant analysis of embeddings, every domain with a weight of its own.

A few dozen images of a new laboratory are too few for gradient steps to place a head well: they lean to what
was seen last, at the old domain's cost. Class means and one shrunken covariance need no steps.

Shape suffixes: B batch · H, W rows, columns · C channels · D embedding · N classes
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medloop_model.errors import ShapeError
from medloop_model.network import BiTMedViT


def discriminant(
    domains: Sequence[tuple[Tensor, Tensor]], classes: int, shrinkage: float
) -> tuple[Tensor, Tensor]:
    """Weight (N, D) and bias (N,) of the linear discriminant, all domains and classes weighing the same.

    Fisher's discriminant with equal priors: W = M·Σ⁻¹, b = −½·diag(M·Σ⁻¹·Mᵀ), where M (N, D) are class means
    and Σ = (1 − λ)·S + λ·(tr S / D)·I (Friedman, Regularized Discriminant Analysis, 1989).

    Args:
        domains: embeddings (B, D) and int64 labels (B,) of each.
        classes: N; each needs an example in some domain.
        shrinkage: λ, 0 to 1.

    Raises:
        ShapeError: a class has no example.
    """
    embedding_BD = torch.cat([embedding for embedding, _ in domains]).double()
    labels_B = torch.cat([labels for _, labels in domains])
    if not torch.bincount(labels_B, minlength=classes).all():
        raise ShapeError("a discriminant needs an example of every class")
    weight_B = torch.cat([torch.full((len(labels),), 1 / len(labels)).double() for _, labels in domains])
    member_BN = torch.nn.functional.one_hot(labels_B, classes).double() * weight_B[:, None]
    mean_ND = (member_BN.T @ embedding_BD) / member_BN.sum(dim=0)[:, None]
    rest_BD = embedding_BD - mean_ND[labels_B]
    scatter_DD = rest_BD.T @ (rest_BD * weight_B[:, None]) / weight_B.sum()
    even_DD = scatter_DD.diagonal().mean() * torch.eye(len(scatter_DD), dtype=torch.float64)
    weight_ND = torch.linalg.solve((1 - shrinkage) * scatter_DD + shrinkage * even_DD, mean_ND.T).T
    bias_N = -0.5 * (weight_ND * mean_ND).sum(dim=1)
    return weight_ND.float(), bias_N.float()


@torch.no_grad()
def place_head(network: BiTMedViT, domains: Sequence[tuple[Tensor, Tensor]], shrinkage: float) -> None:
    """Give a network the discriminant of its embeddings as its head, unless a class has no example.

    Args:
        network: its head is changed in place.
        domains: pixels (B, H, W, C), float32 in [0, 1], and int64 labels (B,) of each.
        shrinkage: λ, 0 to 1.
    """
    classes = len(network.architecture.classes)
    if not torch.bincount(torch.cat([labels_B for _, labels_B in domains]), minlength=classes).all():
        return
    embedded = [(network.embed(pixels_BHWC), labels_B) for pixels_BHWC, labels_B in domains]
    weight_ND, bias_N = discriminant(embedded, classes, shrinkage)
    network.head.weight.copy_(weight_ND)
    network.head.bias.copy_(bias_N)
