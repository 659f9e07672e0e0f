"""Which parameters an adaptation may move, by strategy."""

from __future__ import annotations

from torch import nn

from medloop_model.network import BiTMedViT

SHALLOW_EWC = "shallow-ewc"
"""Data drift: the input moved, so what reads the input is trained and the deep blocks stay."""
DISTIL_ALL = "distil-all"
"""Concept drift: the meaning moved, so everything is trained, held by a teacher where it still holds."""
EXPAND_HEAD = "expand-head"
"""New class: the backbone stays, the head gains a row."""

STRATEGIES = (SHALLOW_EWC, DISTIL_ALL, EXPAND_HEAD)


def freeze(network: BiTMedViT, strategy: str) -> dict[str, nn.Parameter]:
    """Set requires_grad by strategy and return what may move, by name.

    Under `shallow-ewc` the deep half's norms move too: vectors, which flip no ternary code of a deep block.

    Raises:
        ValueError: no such strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"no strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}")
    moving = {}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_moves(name, strategy, network.architecture.depth))
        if parameter.requires_grad:
            moving[name] = parameter
    return moving


def _moves(name: str, strategy: str, depth: int) -> bool:
    if strategy == DISTIL_ALL or name.startswith("head."):
        return True
    if strategy == EXPAND_HEAD:
        return False
    parts = name.split(".")
    return parts[0] != "blocks" or int(parts[1]) < (depth + 1) // 2 or parts[-1] == "norm"
