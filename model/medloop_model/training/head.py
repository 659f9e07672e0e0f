"""A head that learns a class it wasn't born with: new rows beside old ones, which stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from medloop_model.errors import ShapeError
from medloop_model.network import BiTMedViT

LEAD = 1.0  # logits by which an imprinted class leads at its own mean
SILENT_BIAS = -10.0  # a class without an example yet is never answered


def expand_head(network: BiTMedViT, classes: tuple[str, ...]) -> BiTMedViT:
    """The same network with rows for more classes; old logits don't change, new classes stay silent.

    Args:
        network: left as it is.
        classes: the network's classes in their order, then the new ones.

    Raises:
        ShapeError: the old classes aren't the first ones.
    """
    old = network.architecture.classes
    if classes[: len(old)] != old:
        raise ShapeError(f"classes must start with {old}, in this order, got {classes}")
    expanded = BiTMedViT(network.architecture.with_classes(classes))
    state = network.state_dict()
    added = len(classes) - len(old)
    weight_ND, bias_N = state["head.weight"], state["head.bias"]
    state["head.weight"] = torch.cat([weight_ND, weight_ND.new_zeros(added, weight_ND.shape[1])])
    state["head.bias"] = torch.cat([bias_N, bias_N.new_full((added,), SILENT_BIAS)])
    expanded.load_state_dict(state)
    return expanded.eval()


@torch.no_grad()
def imprint(network: BiTMedViT, label: int, mine_BD: Tensor, others_BD: Tensor) -> None:
    """Start a class's row from its first examples (weight imprinting: Qi et al., arXiv 1712.07136).

    The row points from the other examples' mean embedding to the class's own, at the mean length of the other
    rows. Our head isn't normalised as theirs is, so the bias is set such that the class leads by `LEAD` at
    its own mean.

    Args:
        network: its head changes in place.
        label: the class.
        mine_BD: embeddings of the class's examples, at least one.
        others_BD: embeddings of other examples, none allowed.
    """
    head = network.head
    other_rows = [row for row in range(head.out_features) if row != label]
    mean_D = mine_BD.mean(dim=0)
    away_D = mean_D - others_BD.mean(dim=0) if len(others_BD) else mean_D
    length = head.weight[other_rows].norm(dim=1).mean()
    head.weight[label] = away_D / away_D.norm().clamp(min=1e-6) * length
    best_other = (head.weight[other_rows] @ mean_D + head.bias[other_rows]).max()
    head.bias[label] = best_other + LEAD - head.weight[label] @ mean_D
