"""Whole networks on the C++ kernels: what they compute, what they hold and count, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_kernels import (
    BlockWeights,
    InvalidThreads,
    LayoutError,
    LinearWeights,
    NetworkMeasures,
    NetworkWeights,
    NonFiniteInput,
    ShapeError,
    available,
    dispatch,
    pack,
    reference,
    select,
    threads,
    unpack,
)

COMPILERS = [backend for backend in available() if backend.compile is not None]
# Sums in another order than numpy's, and the exponential's 2e-7 a score; logits are of order 1.
ROUNDINGS = 5e-5
MEASURES = NetworkMeasures(
    image_size=12, channels=1, patch_size=3, width=24, heads=4, key_heads=2, hidden=40, classes=3
)

every_compiler = pytest.mark.parametrize("backend", COMPILERS, ids=lambda backend: backend.variant)


def network(measures: NetworkMeasures, *, full_attention: bool = False, seed: int = 1) -> NetworkWeights:
    generator = np.random.default_rng(seed)

    def floats(*shape, around=0.0):
        return (around + 0.2 * generator.standard_normal(shape)).astype(np.float32)

    def full(outputs, inputs, norm=True):
        weight_of_norm = floats(inputs, around=1.0) if norm else None
        return LinearWeights(floats(outputs, inputs), inputs, floats(outputs), norm=weight_of_norm)

    def ternary(outputs, inputs):
        codes = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
        scale = floats(outputs, around=1.0) / np.float32(inputs**0.5)
        return LinearWeights(pack(codes), inputs, floats(outputs), scale, floats(inputs, around=1.0))

    width, hidden = measures.width, measures.hidden
    attention = full if full_attention else ternary
    qkv = width + 2 * measures.key_heads * width // measures.heads
    side = measures.image_size // measures.patch_size
    return NetworkWeights(
        measures=measures,
        patch=full(width, measures.patch_size**2 * measures.channels, norm=False),
        position=floats(side**2, width),
        blocks=tuple(
            BlockWeights(
                attention(qkv, width), attention(width, width), ternary(hidden, width), ternary(width, hidden)
            )
            for _ in range(2)
        ),
        norm_weight=floats(width, around=1.0),
        norm_bias=floats(width),
        head=full(measures.classes, width, norm=False),
    )


def linear(layer: LinearWeights, x, *, gelu: bool = False):
    if layer.weights.dtype == np.float32:
        return reference.rms_norm(x, layer.norm) @ layer.weights.T + layer.bias
    codes, step = reference.quantize(x, layer.norm)
    return reference.ternary_linear(codes, step, layer.weights, layer.scale, layer.bias, gelu=gelu)


def logits_of(weights: NetworkWeights, image):
    """One image in plain numpy, head by head."""
    m = weights.measures
    side, head_width = m.image_size // m.patch_size, m.width // m.heads
    pixels = ((image / np.float32(255) - np.float32(0.5)) * np.float32(4)).astype(np.float32)
    patches = pixels.reshape(side, m.patch_size, side, m.patch_size, m.channels).swapaxes(1, 2)
    x = patches.reshape(side**2, -1) @ weights.patch.weights.T + weights.patch.bias + weights.position
    for block in weights.blocks:
        qkv = linear(block.qkv, x)
        heads = np.split(qkv, qkv.shape[1] // head_width, axis=1)
        mixed = []
        for head in range(m.heads):
            shared = head * m.key_heads // m.heads
            key, value = heads[m.heads + shared], heads[m.heads + m.key_heads + shared]
            scores = heads[head] @ key.T / np.float32(head_width) ** 0.5
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed.append(shares / shares.sum(axis=1, keepdims=True) @ value)
        x = x + linear(block.out, np.concatenate(mixed, axis=1))
        x = x + linear(block.fc2, linear(block.fc1, x, gelu=True))
    pooled = x.mean(axis=0)
    normed = (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-5)
    return (normed * weights.norm_weight + weights.norm_bias) @ weights.head.weights.T + weights.head.bias


def images_of(measures: NetworkMeasures, count: int, seed: int = 2):
    shape = (count, measures.image_size, measures.image_size, measures.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@every_compiler
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("full_attention", [False, True], ids=["ternary", "full"])
def test_a_network_computes_what_its_layers_say(backend, key_heads, full_attention):
    measures = replace(MEASURES, key_heads=key_heads)
    weights = network(measures, full_attention=full_attention)
    images = images_of(measures, 12)
    logits = backend.compile(weights, 1)(images).logits
    expected = np.stack([logits_of(weights, image) for image in images])
    error = np.abs(logits - expected).max(axis=1)
    assert np.median(error) < ROUNDINGS
    assert error.max() < 0.02  # one code of 127 that took the other side of a border


@every_compiler
def test_many_tokens_take_several_blocks_of_keys(backend):
    measures = replace(MEASURES, image_size=48, width=8, heads=2, key_heads=1, hidden=8)
    weights = network(measures)  # 256 tokens
    images = images_of(measures, 6)
    expected = np.stack([logits_of(weights, image) for image in images])
    error = np.abs(backend.compile(weights, 1)(images).logits - expected).max(axis=1)
    assert np.median(error) < ROUNDINGS


@every_compiler
def test_the_int8_control_computes_the_same_bits(backend):
    weights = network(MEASURES)

    def as_bytes(layer):
        return replace(layer, weights=unpack(layer.weights, layer.inputs))

    blocks = tuple(
        BlockWeights(*map(as_bytes, (block.qkv, block.out, block.fc1, block.fc2))) for block in weights.blocks
    )
    control, ternary = backend.compile(replace(weights, blocks=blocks), 1), backend.compile(weights, 1)
    images = images_of(MEASURES, 3)
    np.testing.assert_array_equal(control(images).logits, ternary(images).logits)
    np.testing.assert_array_equal(control(images).blocks, ternary(images).blocks)
    assert ternary.weight_bytes < control.weight_bytes


@every_compiler
def test_threads_change_no_bit_and_calls_allocate_nothing(backend):
    weights, images = network(MEASURES), images_of(MEASURES, 9)
    one, three = backend.compile(weights, 1), backend.compile(weights, 3)
    held = three.workspace_bytes
    for _ in range(3):
        np.testing.assert_array_equal(three(images).logits, one(images).logits)
    assert three.workspace_bytes == held == 3 * one.workspace_bytes


def test_traffic_is_counted_for_each_image():
    compiled = COMPILERS[0].compile(network(MEASURES), 1)
    assert (compiled.traffic.weights, compiled.traffic.activations) == (0, 0)
    compiled(images_of(MEASURES, 1))
    once = compiled.traffic
    # 24 and 40 columns are padded to 32 and 48, outputs 48, 24, 40 and 24 to 48, 32, 48 and 32: 2 bits each.
    ternary = 2 * (48 * 32 + 32 * 32 + 48 * 32 + 32 * 48) // 4
    assert once.weights == ternary + 4 * (32 * 9 + 16 * 24)
    compiled(images_of(MEASURES, 3))
    assert compiled.traffic.activations == 4 * once.activations
    assert compiled.traffic.weights == 4 * once.weights


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 12, 12, 1), dtype=np.float32),
        np.zeros((12, 12, 1), dtype=np.uint8),
        np.zeros((1, 12, 13, 1), dtype=np.uint8),
        np.zeros((1, 12, 12, 3), dtype=np.uint8),
        np.zeros((1, 12, 24, 1), dtype=np.uint8)[:, :, ::2],
    ],
    ids=["dtype", "no-batch", "size", "channels", "stride"],
)
def test_images_of_another_kind_are_refused(images):
    with pytest.raises(ShapeError, match=r"images must be"):
        COMPILERS[0].compile(network(MEASURES), 1)(images)


@every_compiler
@pytest.mark.parametrize("full_attention", [False, True], ids=["ternary", "full"])
@pytest.mark.parametrize("layer", ["qkv", "out", "fc1", "fc2", "head"])
def test_activations_that_overflow_are_reported(backend, layer, full_attention):
    weights = network(MEASURES, full_attention=full_attention)
    if layer == "head":
        broken = replace(weights, head=replace(weights.head, bias=np.full(3, np.inf, dtype=np.float32)))
    else:
        block = weights.blocks[1]
        old = getattr(block, layer)
        bad = replace(old, bias=np.full(len(old.bias), np.inf, dtype=np.float32))
        broken = replace(weights, blocks=(weights.blocks[0], replace(block, **{layer: bad})))
    with pytest.raises(NonFiniteInput, match="NaN or infinite"), np.errstate(all="ignore"):
        backend.compile(broken, 1)(images_of(MEASURES, 2))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"position": np.zeros((15, 24), dtype=np.float32)}, "can't be compiled"),
        ({"position": np.zeros((16, 24))}, "can't be compiled"),
        ({"norm_weight": np.zeros(23, dtype=np.float32)}, "can't be compiled"),
        ({"blocks": ()}, None),
        ({"measures": replace(MEASURES, heads=5)}, "divide"),
        ({"measures": replace(MEASURES, key_heads=3)}, "divide"),
        ({"measures": replace(MEASURES, hidden=41)}, "fc1 has 40 outputs"),
        ({"measures": replace(MEASURES, classes=0)}, "at least 1"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, sentence):
    compile_it = partial(COMPILERS[0].compile, replace(network(MEASURES), **change), 1)
    if sentence is None:
        assert compile_it()(images_of(MEASURES, 1)).blocks.shape == (1, 0, 4)
        return
    with pytest.raises(ShapeError, match=sentence):
        compile_it()


@given(position=st.integers(0, 24 * 32 - 1), shift=st.sampled_from([0, 2, 4, 6]))
def test_a_code_3_is_refused_wherever_it_is(position, shift):
    weights = network(MEASURES)
    layer = weights.blocks[0].fc1
    damaged = layer.weights.copy()
    damaged.flat[position] |= 3 << shift
    block = replace(weights.blocks[0], fc1=replace(layer, weights=damaged))
    with pytest.raises(LayoutError, match=f"at byte {position} of the tensor"):
        COMPILERS[0].compile(replace(weights, blocks=(block, weights.blocks[1])), 1)


@given(data=st.data())
def test_random_bytes_as_weights_are_used_or_refused(data):
    shape = (data.draw(st.integers(0, 41)), data.draw(st.sampled_from([0, 31, 32, 64])))
    noise = np.frombuffer(
        data.draw(st.binary(min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])), np.uint8
    )
    weights = network(MEASURES)
    fc1 = replace(weights.blocks[0].fc1, weights=noise.reshape(shape))
    block = replace(weights.blocks[0], fc1=fc1)
    with pytest.raises((LayoutError, ShapeError)):
        # Padding past column 24 is checked, too: no draw gets through by chance.
        COMPILERS[0].compile(replace(weights, blocks=(block, weights.blocks[1])), 1)


def test_threads_are_a_setting(monkeypatch):
    monkeypatch.delenv(dispatch.THREADS_VARIABLE, raising=False)
    assert threads() == 1
    monkeypatch.setenv(dispatch.THREADS_VARIABLE, "4")
    assert threads() == 4


@pytest.mark.parametrize("value", ["0", "65", "-1", "two", "1.5", "²"])
def test_a_number_of_threads_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv(dispatch.THREADS_VARIABLE, value)
    with pytest.raises(InvalidThreads, match="1 to 64"):
        threads()


def test_the_reference_compiles_nothing():
    assert select("reference").compile is None
