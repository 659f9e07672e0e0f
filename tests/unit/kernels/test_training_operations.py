"""One suite over what each back end offers to training: values bit for bit, gradients within tolerances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_kernels import ShapeError, Training, available, reference, select, select_training

BACKENDS = [backend for backend in available() if backend.training is not None]

# Rows × inputs: of the ward's and the paper's network, no multiple of any vector, one of each, none.
SHAPES = [(49, 96), (784, 192), (64, 2048), (7, 131), (5, 17), (3, 15), (1, 1), (0, 96), (4, 0), (0, 0)]

# Sums of up to 2,048 rounded products, beside the largest of them; one rounding of float32 is 6e-8.
GRADIENT_ROUNDINGS = 4e-6


@pytest.fixture(params=BACKENDS, ids=lambda backend: f"{backend.name}-{backend.variant}")
def training(request: pytest.FixtureRequest) -> Training:
    found: Training = request.param.training
    return found


def operands(generator, rows, inputs):
    x = generator.standard_normal((rows, inputs), dtype=np.float32) * 3
    norm_weight = generator.uniform(0.5, 1.5, inputs).astype(np.float32)
    return x, norm_weight, generator.standard_normal((rows, inputs), dtype=np.float32)


def close(found, expected, allowed):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed * (1 + np.abs(expected).max(initial=0)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rounded_values_are_what_serving_computes_with(training, generator, shape):
    x, norm_weight, _ = operands(generator, *shape)
    rounded, inverse = training.fake_quantize(x, norm_weight)
    codes, step = reference.quantize(x, norm_weight)
    np.testing.assert_array_equal(rounded, codes * step[:, None])
    np.testing.assert_array_equal(inverse, reference.inverse_rms(x))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_those_of_the_norm(training, generator, shape):
    x, norm_weight, gradient = operands(generator, *shape)
    inverse = reference.inverse_rms(x)
    found = training.fake_quantize_backward(gradient.copy(), x, inverse, norm_weight)
    expected = reference.fake_quantize_backward(gradient, x, inverse, norm_weight)
    for mine, theirs in zip(found, expected, strict=True):
        close(mine, theirs, GRADIENT_ROUNDINGS)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 9), inputs=st.integers(0, 70))
def test_every_back_end_agrees_on_any_shape(seed, rows, inputs):
    x, norm_weight, gradient = operands(np.random.default_rng(seed), rows, inputs)
    rounded, inverse = reference.fake_quantize(x, norm_weight)
    slopes = reference.fake_quantize_backward(gradient, x, inverse, norm_weight)
    for backend in BACKENDS:
        mine = backend.training.fake_quantize(x, norm_weight)
        np.testing.assert_array_equal(mine[0], rounded)
        np.testing.assert_array_equal(mine[1], inverse)
        for found, expected in zip(
            backend.training.fake_quantize_backward(gradient.copy(), x, inverse, norm_weight),
            slopes,
            strict=True,
        ):
            close(found, expected, GRADIENT_ROUNDINGS)


def test_one_weight_that_is_no_number_makes_all_of_them_none(training):
    weight = np.ones((3, 21), dtype=np.float32)
    weight[1, 5] = np.nan
    with np.errstate(all="ignore"):
        ternary, _ = training.ternarize(weight, np.ones(3, dtype=np.float32))
    assert np.isnan(ternary).all()


def test_the_references_gradients_are_slopes(generator):
    """Differences in double precision, of the norm alone: its rounding has steps and no slope."""
    x, norm_weight, gradient = (operand.astype(np.float64) for operand in operands(generator, 2, 5))

    def value(x, norm_weight):
        normed = x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + reference.RMS_EPSILON) * norm_weight
        return (gradient * normed).sum()

    def slope_at(moved, place):
        nudge = np.zeros_like(moved)
        nudge[place] = 1e-6
        return nudge

    inverse = 1 / np.sqrt(np.mean(x**2, axis=1) + reference.RMS_EPSILON)
    found = reference.fake_quantize_backward(gradient, x, inverse, norm_weight)
    for place in np.ndindex(x.shape):
        nudge = slope_at(x, place)
        slope = (value(x + nudge, norm_weight) - value(x - nudge, norm_weight)) / 2e-6
        assert found[0][place] == pytest.approx(slope, rel=1e-4, abs=1e-5)
    for place in np.ndindex(norm_weight.shape):
        nudge = slope_at(norm_weight, place)
        slope = (value(x, norm_weight + nudge) - value(x, norm_weight - nudge)) / 2e-6
        assert found[1][place] == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 50, 95])
def test_a_row_that_is_not_finite_comes_out_so_and_no_other(training, bad, column):
    x = np.ones((4, 96), dtype=np.float32)
    x[2, column] = bad
    with np.errstate(all="ignore"):
        rounded, _ = training.fake_quantize(x, np.ones(96, dtype=np.float32))
    assert not np.isfinite(rounded[2]).any()
    assert np.isfinite(rounded[[0, 1, 3]]).all()


def test_operands_that_do_not_fit_are_refused_in_words(training):
    x, norm_weight = np.zeros((4, 96), dtype=np.float32), np.ones(96, dtype=np.float32)
    inverse = np.ones(4, dtype=np.float32)
    with pytest.raises(ShapeError, match="norm_weight must be float32"):
        training.fake_quantize(x, norm_weight[:95])
    with pytest.raises(ShapeError, match="gradient must be float32"):
        training.fake_quantize_backward(x[:3], x, inverse, norm_weight)
    with pytest.raises(ShapeError, match="inverse must be float32"):
        training.fake_quantize_backward(x, x, inverse[:3], norm_weight)
    with pytest.raises(ShapeError, match="x must be float32 matrix"):
        training.fake_quantize(x.astype(np.float64), norm_weight)
    with pytest.raises(ShapeError, match="ascontiguousarray"):
        training.fake_quantize(x.T, inverse)


def test_weights_that_do_not_fit_are_refused_in_words(training):
    weight, gain = np.zeros((4, 96), dtype=np.float32), np.ones(4, dtype=np.float32)
    with pytest.raises(ShapeError, match="gain must be float32"):
        training.ternarize(weight, gain[:3])
    with pytest.raises(ShapeError, match="gradient must be float32"):
        training.ternarize_backward(weight[:3], weight, gain)


def test_training_runs_on_the_chosen_back_end(monkeypatch):
    monkeypatch.setenv("MEDLOOP_KERNELS", "reference")
    assert select_training() is select().training
    monkeypatch.delenv("MEDLOOP_KERNELS")
    assert select_training() is select().training
