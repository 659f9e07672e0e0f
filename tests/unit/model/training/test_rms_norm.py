from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_model.training.rms_norm import rms_norm
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5


def drawn(seed: int, *size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ours(x: Tensor, weight: Tensor) -> Tensor:
    return rms_norm(x, weight, EPSILON)


def torchs(x: Tensor, weight: Tensor) -> Tensor:
    return functional.rms_norm(x, weight.shape, weight, EPSILON)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31 - 1), st.integers(1, 3), st.integers(1, 5), st.integers(1, 40))
def test_values_and_gradients_are_torchs(seed: int, batch: int, tokens: int, width: int) -> None:
    upstream = drawn(seed + 2, batch, tokens, width)
    results = []
    for normalise in (ours, torchs):
        x = drawn(seed, batch, tokens, width).requires_grad_()
        weight = drawn(seed + 1, width).requires_grad_()
        normed = normalise(x, weight)
        results.append((normed, *torch.autograd.grad((normed * upstream).sum(), [x, weight])))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_a_token_of_zeros_stays_finite() -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    normed = rms_norm(x, torch.ones(4), EPSILON)
    normed.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(normed, torch.zeros(2, 4))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full((2, 4), EPSILON**-0.5))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_token_has_unit_mean_square_at_any_scale(scale: float) -> None:
    normed = rms_norm(drawn(0, 3, 64) * scale, torch.ones(64, dtype=torch.float64), 1e-15)
    torch.testing.assert_close(normed.square().mean(dim=-1), torch.ones(3, dtype=torch.float64))
