from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_model.training.quantizers import absmax_int8_, absmean_ternary, flipped_codes, ternary_codes

seeds = st.integers(0, 2**31 - 1)
sizes = st.tuples(st.integers(1, 17), st.integers(1, 33))


def absmax_int8(x: torch.Tensor) -> torch.Tensor:
    return absmax_int8_(x.clone())


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


@settings(deadline=None)
@given(seeds, sizes, st.floats(1e-3, 1e3))
def test_int8_is_within_half_a_step_and_keeps_the_extremes(
    seed: int, size: tuple[int, int], scale: float
) -> None:
    x = drawn(seed, size, scale)
    step = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5) / 127
    codes = absmax_int8(x) / step
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)
    assert codes.abs().max() <= 127.001
    assert ((absmax_int8(x) - x).abs() <= step * 0.501).all()


def test_int8_of_one_token_ignores_the_others() -> None:
    x = drawn(0, (4, 8))
    louder = x.clone()
    louder[1:] *= 100
    assert torch.equal(absmax_int8(louder)[0], absmax_int8(x)[0])


@pytest.mark.parametrize("quantize", [absmean_ternary, absmax_int8])
def test_zeros_stay_zeros(quantize: object) -> None:
    assert callable(quantize)
    assert torch.equal(quantize(torch.zeros(3, 5)), torch.zeros(3, 5))


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
