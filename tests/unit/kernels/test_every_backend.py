"""One suite over every back end that runs here, each instruction set by itself.

int8 codes and int32 sums are compared bit for bit with the reference, floats by the tolerances below.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_kernels import Backend, LayoutError, NonFiniteInput, ShapeError, available, pack, reference
from safetensors.numpy import load_file

BACKENDS = available()
VECTORS = load_file(Path(__file__).with_name("vectors.safetensors"))
CASES = sorted({name.partition("/")[0] for name in VECTORS})

# Each is tokens × inputs × outputs.
SHAPES = [
    *[(49, 96, 160), (49, 96, 96), (49, 96, 192), (49, 192, 96), (784, 96, 192)],  # ward
    *[(64, 512, 2048), (64, 2048, 512), (64, 512, 640)],  # paper
    *[(1, 1, 1), (1, 96, 1), (1, 1, 16), (4, 128, 16)],  # one of each; exactly one tile
    *[(7, 131, 17), (3, 127, 31), (5, 257, 13), (2, 2, 3), (6, 33, 15)],  # no multiple of any tile
    *[(0, 96, 16), (4, 96, 0), (0, 0, 0), (3, 0, 5)],  # empty
]

# Scale, step and bias each round once in the same order on every back end: equal, but for a compiler that
# keeps more bits than float32 on some processor. One rounding of float32 is 6e-8.
LINEAR_ROUNDINGS = 2e-7
# The C++ erf is a rational approximation within 5e-7, and GELU multiplies it with x / 2.
GELU_ERROR = 5e-7


@pytest.fixture(params=BACKENDS, ids=lambda backend: f"{backend.name}-{backend.variant}")
def kernels(request: pytest.FixtureRequest) -> Backend:
    backend: Backend = request.param
    return backend


def operands(generator, tokens, inputs, outputs):
    codes = generator.integers(-127, 128, (tokens, inputs), dtype=np.int8)
    weights = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
    return codes, weights


def exact(codes, weights):
    return codes.astype(np.int64) @ weights.astype(np.int64).T


def test_the_plain_cpp_kernels_are_always_there():
    assert {"numpy", "generic"} <= {backend.variant for backend in BACKENDS}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_exact(kernels, generator, shape):
    codes, weights = operands(generator, *shape)
    sums = kernels.ternary_matmul(codes, pack(weights))
    assert sums.dtype == np.int32
    np.testing.assert_array_equal(sums, exact(codes, weights))


@pytest.mark.parametrize("weight", [-1, 0, 1])
@pytest.mark.parametrize("code", [-128, -127, 127])
@pytest.mark.parametrize("inputs", [96, 128, 4096])
def test_extreme_operands_do_not_overflow(kernels, weight, code, inputs):
    codes = np.full((5, inputs), code, dtype=np.int8)
    weights = np.full((17, inputs), weight, dtype=np.int8)
    np.testing.assert_array_equal(kernels.ternary_matmul(codes, pack(weights)), code * weight * inputs)


@given(seed=st.integers(0, 2**32 - 1), shape=st.tuples(*[st.integers(0, 40)] * 3))
def test_sums_are_exact_for_any_shape(seed, shape):
    codes, weights = operands(np.random.default_rng(seed), *shape)
    for backend in BACKENDS:
        np.testing.assert_array_equal(backend.ternary_matmul(codes, pack(weights)), exact(codes, weights))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_quantizing_gives_the_reference_codes(kernels, generator, shape):
    tokens, inputs, _ = shape
    x = generator.standard_normal((tokens, inputs), dtype=np.float32) * 5
    norm_weight = generator.uniform(0.5, 1.5, inputs).astype(np.float32)
    codes, step = kernels.quantize(x, norm_weight)
    expected_codes, expected_step = reference.quantize(x, norm_weight)
    np.testing.assert_array_equal(codes, expected_codes)
    np.testing.assert_array_equal(step, expected_step)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-4, 1.0, 1e30])
def test_quantizing_constant_rows(kernels, value):
    x = np.full((3, 10), value, dtype=np.float32)
    codes, step = kernels.quantize(x, np.ones(10, dtype=np.float32))
    expected_codes, expected_step = reference.quantize(x, np.ones(10, dtype=np.float32))
    np.testing.assert_array_equal(codes, expected_codes)
    np.testing.assert_array_equal(step, expected_step)


def test_quantizing_rounds_half_to_even(kernels):
    # A constant row of 1024 is normalised to exactly 1, so the weights are what is rounded, at step 1.
    norm_weight = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5], dtype=np.float32)
    codes, step = kernels.quantize(np.full((1, 7), 1024, dtype=np.float32), norm_weight)
    assert step.tolist() == [1.0]
    assert codes.tolist() == [[127, 0, 2, 2, 0, -2, -2]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 50, 95])
def test_quantizing_refuses_what_has_no_code(kernels, bad, column):
    x = np.ones((4, 96), dtype=np.float32)
    x[2, column] = bad
    with pytest.raises(NonFiniteInput), np.errstate(all="ignore"):
        kernels.quantize(x, np.ones(96, dtype=np.float32))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("gelu", [False, True], ids=["plain", "gelu"])
def test_linear_agrees_with_the_reference(kernels, generator, shape, gelu):
    tokens, _, outputs = shape
    codes, weights = operands(generator, *shape)
    step = generator.uniform(0.001, 0.02, tokens).astype(np.float32)
    scale = generator.uniform(0.02, 0.2, outputs).astype(np.float32)
    bias = generator.standard_normal(outputs, dtype=np.float32)
    y = kernels.ternary_linear(codes, step, pack(weights), scale, bias, gelu=gelu)
    expected = exact(codes, weights) * step.astype(np.float64)[:, None] * scale + bias
    largest_term = 1 + np.abs(expected).max(initial=0)
    if gelu:
        expected = reference.exact_gelu(expected)
    assert y.dtype == np.float32
    assert y.shape == expected.shape
    allowed = largest_term * (LINEAR_ROUNDINGS + gelu * GELU_ERROR)
    np.testing.assert_allclose(y, expected, rtol=0, atol=allowed)


def test_gelu_is_within_its_stated_error(kernels):
    # One input of code 1 and step x, weight 1: the sum is x itself.
    x = np.concatenate([np.linspace(-10, 10, 4001), [-1e30, 1e30, 0.0]]).astype(np.float32)
    one = np.ones(1, dtype=np.float32)
    y = kernels.ternary_linear(
        np.ones((len(x), 1), dtype=np.int8),
        x,
        pack(np.ones((1, 1), dtype=np.int8)),
        one,
        0 * one,
        gelu=True,
    )[:, 0]
    error = np.abs(y - reference.exact_gelu(x)) / np.maximum(1, np.abs(x))
    assert error.max() <= GELU_ERROR


@pytest.mark.parametrize("case", CASES)
def test_committed_vectors_give_the_same_bits_on_this_machine(kernels, case):
    vector = {name: VECTORS[f"{case}/{name}"] for name in ("weights", "packed", "x", "norm_weight")}
    np.testing.assert_array_equal(pack(vector["weights"]), vector["packed"])
    codes, step = kernels.quantize(vector["x"], vector["norm_weight"])
    np.testing.assert_array_equal(codes, VECTORS[f"{case}/codes"])
    np.testing.assert_array_equal(step, VECTORS[f"{case}/step"])
    np.testing.assert_array_equal(kernels.ternary_matmul(codes, vector["packed"]), VECTORS[f"{case}/sums"])


def test_operands_that_do_not_fit_are_refused_in_words(kernels):
    codes = np.zeros((4, 96), dtype=np.int8)
    packed = pack(np.zeros((16, 96), dtype=np.int8))
    step, scale = np.ones(4, dtype=np.float32), np.ones(16, dtype=np.float32)
    with pytest.raises(LayoutError, match="129 inputs take uint8"):
        kernels.ternary_matmul(np.zeros((4, 129), dtype=np.int8), packed)
    with pytest.raises(ShapeError, match="codes must be int8"):
        kernels.ternary_matmul(codes.astype(np.int32), packed)
    with pytest.raises(ShapeError, match="step must be float32"):
        kernels.ternary_linear(codes, step[:3], packed, scale, scale)
    with pytest.raises(ShapeError, match="scale must be float32"):
        kernels.ternary_linear(codes, step, packed, scale.astype(np.float64), scale)
    with pytest.raises(ShapeError, match="norm_weight must be float32"):
        kernels.quantize(np.zeros((4, 96), dtype=np.float32), step)
    with pytest.raises(ShapeError, match="ascontiguousarray"):
        kernels.ternary_matmul(np.zeros((96, 4), dtype=np.int8).T, packed)
