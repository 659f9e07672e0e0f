from __future__ import annotations

import torch
from medloop_model.training.proximal import proximal_penalty


def test_its_gradient_pulls_every_weight_back_by_its_distance() -> None:
    """∇ ½‖w − w_t‖² = w − w_t."""
    generator = torch.Generator().manual_seed(0)
    names = ("head.weight", "patch.bias")
    anchor = {name: torch.randn(3, 4, generator=generator) for name in names}
    moved = {name: torch.randn(3, 4, generator=generator, requires_grad=True) for name in names}
    penalty = proximal_penalty(moved.items(), anchor)
    expected = sum(float((moved[name] - anchor[name]).detach().pow(2).sum()) for name in names) / 2
    torch.testing.assert_close(float(penalty.detach()), expected)
    gradients = torch.autograd.grad(penalty, list(moved.values()))
    for name, gradient in zip(names, gradients, strict=True):
        torch.testing.assert_close(gradient, moved[name] - anchor[name])


def test_where_nothing_moves_there_is_nothing_to_pull() -> None:
    assert float(proximal_penalty({}.items(), {})) == 0
