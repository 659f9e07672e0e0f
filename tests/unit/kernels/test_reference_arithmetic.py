"""The reference against torch, and against the equations on numbers small enough to do by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from medloop_kernels import NonFiniteInput, absmax_int8, absmean_ternary, pack, rms_norm
from medloop_kernels.reference import exact_gelu, ternary_linear, ternary_matmul
from torch.nn import functional

# One float32 rounding of a result near 1 is 6e-8; these functions round a handful of times.
FLOAT_ROUNDINGS = 5e-7


def test_absmean_divides_by_the_mean_magnitude():
    codes, scale = absmean_ternary(np.array([[0.9, -0.1, 0.4], [-3.0, 0.0, 1.6]], dtype=np.float32))
    assert scale == pytest.approx(1.0)
    assert codes.tolist() == [[1, 0, 0], [-1, 0, 1]]


def test_absmean_of_zero_weights_is_zero_and_finite():
    codes, scale = absmean_ternary(np.zeros((2, 3), dtype=np.float32))
    assert not codes.any()
    assert 0 < scale < 1e-4


def test_absmean_rounds_half_to_even():
    codes, _ = absmean_ternary(np.array([[0.5, -0.5, 1.5, 1.5]], dtype=np.float32))
    assert codes.tolist() == [[0, 0, 1, 1]]


def test_absmax_uses_the_whole_symmetric_range():
    codes, step = absmax_int8(np.array([[-2.54, 1.27, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32))
    assert codes.tolist() == [[-127, 64, 0], [0, 0, 0]]
    assert step[0] == pytest.approx(0.02)


def test_absmax_error_is_at_most_half_a_step(generator):
    x = generator.standard_normal((40, 96), dtype=np.float32)
    codes, step = absmax_int8(x)
    assert np.abs(codes * step[:, None] - x).max() <= step.max() * 0.5001
    assert (np.abs(codes).max(axis=1) == 127).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_absmax_refuses_what_has_no_code(bad):
    with pytest.raises(NonFiniteInput):
        absmax_int8(np.array([[1.0, bad]], dtype=np.float32))


def test_rms_norm_agrees_with_torch(generator):
    x = generator.standard_normal((30, 192), dtype=np.float32) * 3
    weight = generator.uniform(0.5, 1.5, 192).astype(np.float32)
    expected = functional.rms_norm(torch.from_numpy(x), (192,), torch.from_numpy(weight), 1e-5)
    np.testing.assert_allclose(rms_norm(x, weight), expected, rtol=FLOAT_ROUNDINGS, atol=FLOAT_ROUNDINGS)


def test_gelu_agrees_with_torch():
    x = np.linspace(-9, 9, 2001, dtype=np.float32)
    expected = functional.gelu(torch.from_numpy(x).double())
    np.testing.assert_allclose(exact_gelu(x), expected, rtol=FLOAT_ROUNDINGS, atol=FLOAT_ROUNDINGS)


def test_ternary_matmul_is_the_integer_product(generator):
    codes = generator.integers(-127, 128, (9, 131), dtype=np.int8)
    weights = generator.integers(-1, 2, (17, 131), dtype=np.int8)
    expected = torch.from_numpy(codes).long() @ torch.from_numpy(weights).long().T
    sums = ternary_matmul(codes, pack(weights))
    assert sums.dtype == np.int32
    np.testing.assert_array_equal(sums, expected)


def test_ternary_linear_scales_each_token_and_each_output():
    y = ternary_linear(
        np.array([[2, 3], [4, 5]], dtype=np.int8),
        np.array([0.5, 0.25], dtype=np.float32),
        pack(np.array([[1, 1], [1, -1], [0, 1]], dtype=np.int8)),
        np.array([2.0, 4.0, 8.0], dtype=np.float32),
        np.array([0.0, 1.0, -1.0], dtype=np.float32),
    )
    assert y.tolist() == [[5.0, -1.0, 11.0], [4.5, 0.0, 9.0]]
