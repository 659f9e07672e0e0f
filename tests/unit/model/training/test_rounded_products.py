"""Products of rounded factors: near the exact ones, and only where they were asked for."""

from __future__ import annotations

import pytest
import torch
from medloop_model.training.rounded_products import rounded_products
from torch import Tensor

MOST_OFF = 2**-7
"""Of the largest product: two factors of 8 bits each, and sums of numbers of either sign."""


def factors() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(784, 96, generator=draw), torch.randn(192, 96, generator=draw)


def test_products_are_near_the_exact_ones() -> None:
    x, weight = factors()
    exact = x @ weight.T
    with rounded_products():
        rounded = x @ weight.T
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() <= MOST_OFF * exact.abs().max()


def test_what_is_outside_stays_exact_though_an_error_ended_it() -> None:
    x, weight = factors()
    exact = x @ weight.T
    with pytest.raises(ZeroDivisionError), rounded_products():
        raise ZeroDivisionError
    assert torch.equal(x @ weight.T, exact)


def test_integers_of_eight_bits_lose_nothing() -> None:
    draw = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (784, 96), generator=draw).float()
    ternary = torch.randint(-1, 2, (192, 96), generator=draw).float()
    exact = codes @ ternary.T
    with rounded_products():
        assert torch.equal(codes @ ternary.T, exact)
