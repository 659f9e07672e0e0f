from __future__ import annotations

import torch
from medloop_model.training.gelu import gelu
from torch.nn import functional


def test_values_and_gradients_are_torchs() -> None:
    draw = torch.Generator().manual_seed(0)
    upstream = torch.randn(2, 3, 37, generator=draw)
    x = 4 * torch.randn(2, 3, 37, generator=draw)
    results = []
    for function in (gelu, functional.gelu):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        results.append((y.detach(), *torch.autograd.grad(y, leaf, upstream)))
        assert torch.equal(leaf.detach(), x)
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
