from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_model.training.quantizers import absmean_ternary, flipped_codes, ternary_codes

seeds = st.integers(0, 2**31 - 1)
sizes = st.tuples(st.integers(1, 17), st.integers(1, 33))


def drawn(seed: int, size: tuple[int, int], scale: float = 1.0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale


@settings(deadline=None)
@given(seeds, sizes, st.floats(1e-3, 1e3))
def test_ternary_takes_three_values_a_tensor(seed: int, size: tuple[int, int], scale: float) -> None:
    weight = drawn(seed, size, scale)
    gamma = weight.abs().mean().clamp(min=1e-5)
    ternary = absmean_ternary(weight)
    assert torch.isin(ternary, torch.stack([-gamma, gamma * 0, gamma])).all()
    # A weight keeps its sign or becomes 0, and is 0 exactly within half of γ.
    assert (ternary * weight >= 0).all()
    assert torch.equal(ternary == 0, (weight / gamma).round() == 0)


def test_ternary_of_a_known_matrix() -> None:
    codes, gamma = ternary_codes(torch.tensor([[2.0, -1.0, 0.4], [-0.2, 0.0, 2.4]]))
    assert gamma.item() == pytest.approx(1.0)
    assert codes.tolist() == [[1, -1, 0], [0, 0, 1]]


def test_zeros_stay_zeros() -> None:
    assert torch.equal(absmean_ternary(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_the_gradient_passes_straight_through() -> None:
    x = drawn(1, (6, 10)).requires_grad_()
    upstream = drawn(2, (6, 10))
    (absmean_ternary(x) * upstream).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, upstream)


def test_flipped_codes_counts_the_share_that_changed() -> None:
    before = {"a": torch.tensor([1.0, -1.0, 1.0, -1.0])}
    after = {"a": torch.tensor([1.0, 1.0, 1.0, -1.0])}
    assert flipped_codes(before, after) == 0.25
    assert flipped_codes(before, before) == 0
    assert flipped_codes({}, {}) == 0
