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
    NonFiniteInput,
    ShapeError,
    available,
    dispatch,
    select,
    threads,
    unpack,
)
from random_network import MEASURES, ROUNDINGS, logits_of, random_images, random_network

COMPILERS = [backend for backend in available() if backend.compile is not None]
CPU = [backend for backend in COMPILERS if backend.name == "cpu"]

every_compiler = pytest.mark.parametrize("backend", COMPILERS, ids=lambda backend: backend.variant)
every_instruction_set = pytest.mark.parametrize("backend", CPU, ids=lambda backend: backend.variant)


@every_compiler
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("full_attention", [False, True], ids=["ternary", "full"])
def test_a_network_computes_what_its_layers_say(backend, key_heads, full_attention):
    measures = replace(MEASURES, key_heads=key_heads)
    weights = random_network(measures, full_attention=full_attention)
    images = random_images(measures, 12)
    logits = backend.compile(weights, 1)(images).logits
    expected = np.stack([logits_of(weights, image) for image in images])
    error = np.abs(logits - expected).max(axis=1)
    assert np.median(error) < ROUNDINGS
    assert error.max() < 0.02  # one code of 127 that took the other side of a border


@every_compiler
def test_many_tokens_take_several_blocks_of_keys(backend):
    measures = replace(MEASURES, image_size=48, width=8, heads=2, key_heads=1, hidden=8)
    weights = random_network(measures)  # 256 tokens
    images = random_images(measures, 6)
    expected = np.stack([logits_of(weights, image) for image in images])
    error = np.abs(backend.compile(weights, 1)(images).logits - expected).max(axis=1)
    assert np.median(error) < ROUNDINGS


@every_instruction_set
def test_the_int8_control_computes_the_same_bits(backend):
    weights = random_network(MEASURES)

    def as_bytes(layer):
        return replace(layer, weights=unpack(layer.weights, layer.inputs))

    blocks = tuple(
        BlockWeights(*map(as_bytes, (block.qkv, block.out, block.fc1, block.fc2))) for block in weights.blocks
    )
    control, ternary = backend.compile(replace(weights, blocks=blocks), 1), backend.compile(weights, 1)
    images = random_images(MEASURES, 3)
    np.testing.assert_array_equal(control(images).logits, ternary(images).logits)
    np.testing.assert_array_equal(control(images).blocks, ternary(images).blocks)
    assert ternary.weight_bytes < control.weight_bytes


@every_instruction_set
def test_threads_change_no_bit_and_calls_allocate_nothing(backend):
    weights, images = random_network(MEASURES), random_images(MEASURES, 9)
    one, three = backend.compile(weights, 1), backend.compile(weights, 3)
    held = three.workspace_bytes
    for _ in range(3):
        np.testing.assert_array_equal(three(images).logits, one(images).logits)
    assert three.workspace_bytes == held == 3 * one.workspace_bytes


def test_traffic_is_counted_for_each_image():
    compiled = CPU[0].compile(random_network(MEASURES), 1)
    assert (compiled.traffic.weights, compiled.traffic.activations) == (0, 0)
    compiled(random_images(MEASURES, 1))
    once = compiled.traffic
    # 24 and 40 columns are padded to 32 and 48, outputs 48, 24, 40 and 24 to 48, 32, 48 and 32: 2 bits each.
    ternary = 2 * (48 * 32 + 32 * 32 + 48 * 32 + 32 * 48) // 4
    assert once.weights == ternary + 4 * (32 * 9 + 16 * 24)
    compiled(random_images(MEASURES, 3))
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
        CPU[0].compile(random_network(MEASURES), 1)(images)


@every_compiler
@pytest.mark.parametrize("full_attention", [False, True], ids=["ternary", "full"])
@pytest.mark.parametrize("layer", ["qkv", "out", "fc1", "fc2", "head"])
def test_activations_that_overflow_are_reported(backend, layer, full_attention):
    weights = random_network(MEASURES, full_attention=full_attention)
    if layer == "head":
        broken = replace(weights, head=replace(weights.head, bias=np.full(3, np.inf, dtype=np.float32)))
    else:
        block = weights.blocks[1]
        old = getattr(block, layer)
        bad = replace(old, bias=np.full(len(old.bias), np.inf, dtype=np.float32))
        broken = replace(weights, blocks=(weights.blocks[0], replace(block, **{layer: bad})))
    with pytest.raises(NonFiniteInput, match="NaN or infinite"), np.errstate(all="ignore"):
        backend.compile(broken, 1)(random_images(MEASURES, 2))


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
    compile_it = partial(CPU[0].compile, replace(random_network(MEASURES), **change), 1)
    if sentence is None:
        assert compile_it()(random_images(MEASURES, 1)).blocks.shape == (1, 0, 4)
        return
    with pytest.raises(ShapeError, match=sentence):
        compile_it()


@given(position=st.integers(0, 24 * 32 - 1), shift=st.sampled_from([0, 2, 4, 6]))
def test_a_code_3_is_refused_wherever_it_is(position, shift):
    weights = random_network(MEASURES)
    layer = weights.blocks[0].fc1
    damaged = layer.weights.copy()
    damaged.flat[position] |= 3 << shift
    block = replace(weights.blocks[0], fc1=replace(layer, weights=damaged))
    with pytest.raises(LayoutError, match=f"at byte {position} of the tensor"):
        CPU[0].compile(replace(weights, blocks=(block, weights.blocks[1])), 1)


@given(data=st.data())
def test_random_bytes_as_weights_are_used_or_refused(data):
    shape = (data.draw(st.integers(0, 41)), data.draw(st.sampled_from([0, 31, 32, 64])))
    noise = np.frombuffer(
        data.draw(st.binary(min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])), np.uint8
    )
    weights = random_network(MEASURES)
    fc1 = replace(weights.blocks[0].fc1, weights=noise.reshape(shape))
    block = replace(weights.blocks[0], fc1=fc1)
    with pytest.raises((LayoutError, ShapeError)):
        # Padding past column 24 is checked, too: no draw gets through by chance.
        CPU[0].compile(replace(weights, blocks=(block, weights.blocks[1])), 1)


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
