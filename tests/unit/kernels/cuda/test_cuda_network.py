"""Whole networks on the emulated GPU, every kernel under sanitizers, and on a real one if there is one."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import medloop_model
import numpy as np
import pytest
from medloop_kernels import (
    Backend,
    LayoutError,
    NonFiniteInput,
    ShapeError,
    pack,
    reference,
    select,
    unpack,
)
from medloop_kernels.cuda import backend_on, network
from medloop_model.checkpoint import load_package
from medloop_model.engine import Engine
from random_network import MEASURES, ROUNDINGS, logits_of, random_images, random_network

PHANTOM = Path(medloop_model.__file__).parent / "pretrained" / "phantom" / "model.safetensors"

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(scope="module")
def backend(gpu) -> Backend:
    return backend_on(gpu)


@pytest.fixture(scope="module")
def phantom():
    return load_package(PHANTOM)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("full_attention", [False, True], ids=["ternary", "full"])
def test_a_network_computes_what_its_layers_say(backend, key_heads, full_attention):
    weights = random_network(replace(MEASURES, key_heads=key_heads), full_attention=full_attention)
    images = random_images(MEASURES, 3)
    logits = backend.compile(weights, 1)(images).logits
    error = np.abs(logits - np.stack([logits_of(weights, image) for image in images])).max(axis=1)
    assert np.median(error) < ROUNDINGS
    assert error.max() < 0.02  # one code of 127 that took the other side of a border


def test_wide_heads_and_colours(backend):
    measures = replace(MEASURES, channels=3, width=96, heads=2, key_heads=1)
    weights, images = random_network(measures), random_images(measures, 1)
    logits = backend.compile(weights, 1)(images).logits
    np.testing.assert_allclose(logits[0], logits_of(weights, images[0]), rtol=0, atol=0.02)


@pytest.mark.slow
def test_real_weights_give_what_the_reference_engine_gives(backend, phantom, generator):
    images = generator.integers(0, 256, (3, 28, 28), dtype=np.uint8)
    found, expected = Engine(phantom, backend)(images), Engine(phantom, select("reference"))(images)
    error = np.abs(found.logits - expected.logits).max(axis=1)
    assert error.min() < 1e-6  # sums in another order
    assert error.max() < 0.005  # one code of 127 that took the other side of a border
    np.testing.assert_allclose(found.embedding, expected.embedding, rtol=0, atol=0.01)
    np.testing.assert_allclose(found.blocks, expected.blocks, rtol=0, atol=1e-3)


def test_an_image_gives_the_same_bits_in_every_batch(backend):
    weights = random_network(MEASURES)
    compiled = backend.compile(replace(weights, blocks=weights.blocks[:1]), 1)
    images = random_images(MEASURES, 5)  # 80 tokens, so one image lies across two tiles
    together = compiled(images)
    for index, image in enumerate(images):
        alone = compiled(image[None])
        for part in ("logits", "embedding", "blocks"):
            np.testing.assert_array_equal(getattr(alone, part)[0], getattr(together, part)[index])


def test_another_thread_may_run_what_this_one_compiled(backend):
    compiled = backend.compile(replace(random_network(MEASURES), blocks=()), 1)
    images = random_images(MEASURES, 1)
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(compiled, images).result()
    np.testing.assert_array_equal(there.logits, compiled(images).logits)


def test_a_batch_of_any_size_is_replayed_from_few_graphs(gpu, backend, monkeypatch):
    captured = []
    capture = gpu.capture
    monkeypatch.setattr(gpu, "capture", lambda launches: captured.append(launches) or capture(launches))
    monkeypatch.setattr(network, "MOST_TOKENS", 70)  # four images of 16
    compiled = backend.compile(replace(random_network(MEASURES), blocks=()), 1)
    held = compiled.workspace_bytes
    for count in (0, 13, 5, 4, 1, 9):
        output = compiled(random_images(MEASURES, count))
        assert (len(output.logits), len(output.embedding), len(output.blocks)) == (count, count, count)
    assert len(captured) == len({4, 1})
    assert compiled.workspace_bytes == held


def test_traffic_counts_weights_once_a_graph_and_activations_once_an_image(backend):
    weights = random_network(MEASURES)
    compiled = backend.compile(weights, 1)
    assert (compiled.traffic.weights, compiled.traffic.activations) == (0, 0)
    compiled(random_images(MEASURES, 1))
    once = compiled.traffic
    packed = 2 * (48 + 24 + 40 + 24) * 32  # rows of up to 128 inputs take 32 bytes
    assert once.weights == packed + 4 * (24 * 9 + 3 * 24)
    layers = (24 + 48) + (48 + 24) + (24 + 2 * 24) + (24 + 40) + (40 + 2 * 24)
    assert once.activations == 16 * (9 + 4 * (2 * 24 + 2 * layers))
    compiled(random_images(MEASURES, 4))
    assert compiled.traffic.weights == 2 * once.weights
    assert compiled.traffic.activations == 5 * once.activations


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
    compiled = backend.compile(broken, 1)
    with pytest.raises(NonFiniteInput, match="NaN or infinite"):
        compiled(random_images(MEASURES, 1))


def first_block(weights, **layers):
    return replace(weights, blocks=(replace(weights.blocks[0], **layers), *weights.blocks[1:]))


def test_weights_that_the_gpu_has_no_kernel_for_are_refused(backend):
    weights = random_network(MEASURES)
    fc1 = weights.blocks[0].fc1
    control = first_block(weights, fc1=replace(fc1, weights=unpack(fc1.weights, fc1.inputs)))
    with pytest.raises(LayoutError, match=r"not int8: pack them, or choose `cpu`"):
        backend.compile(control, 1)
    wide = replace(MEASURES, width=65, heads=1, key_heads=1)
    with pytest.raises(ShapeError, match="heads of up to 64 columns, not 65"):
        backend.compile(random_network(wide), 1)


def test_damaged_codes_are_refused(backend):
    weights = random_network(MEASURES)
    damaged = weights.blocks[0].fc1.weights.copy()
    damaged.flat[7] |= 3
    with pytest.raises(LayoutError, match="at byte 7 of the tensor"):
        backend.compile(first_block(weights, fc1=replace(weights.blocks[0].fc1, weights=damaged)), 1)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 12, 12, 1), dtype=np.float32), np.zeros((1, 12, 24, 1), dtype=np.uint8)[:, :, ::2]],
    ids=["dtype", "stride"],
)
def test_images_of_another_kind_are_refused(backend, images):
    with pytest.raises(ShapeError, match=r"images must be"):
        backend.compile(random_network(MEASURES), 1)(images)


def test_single_operations_give_the_reference_bits(backend, generator):
    for tokens in (3, 7):  # by rows, by tiles
        x, norm = generator.standard_normal((tokens, 40), dtype=np.float32), np.ones(40, np.float32)
        packed = pack(generator.integers(-1, 2, (9, 40), dtype=np.int8))
        scale, bias = generator.uniform(0.1, 1, (2, 9)).astype(np.float32)
        codes, step = backend.quantize(x, norm)
        np.testing.assert_array_equal(codes, reference.quantize(x, norm)[0])
        np.testing.assert_array_equal(
            backend.ternary_matmul(codes, packed), reference.ternary_matmul(codes, packed)
        )
        np.testing.assert_array_equal(
            backend.ternary_linear(codes, step, packed, scale, bias),
            reference.ternary_linear(codes, step, packed, scale, bias),
        )
    with pytest.raises(NonFiniteInput):
        backend.quantize(np.full((1, 40), np.nan, np.float32), norm)
