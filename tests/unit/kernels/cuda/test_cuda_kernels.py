"""The .cu files against the reference: on the emulated GPU under sanitizers, and on a real one where one is.

Bit for bit, but for what a GPU's library computes (erf, exp) and for float sums that run in another order
than numpy's: the tolerances below. What the emulation cannot show: that a GPU's registers lie as PTX's manual
says.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from emulated_gpu import SOURCES, EmulatedGpu, EmulationFault, build
from medloop_kernels import pack, reference
from medloop_kernels.cuda.driver import THREADS, Driver
from medloop_kernels.cuda.kernels import SOURCE_OF, WARPS, Finish, attention_kernel, tiles
from medloop_kernels.cuda.kernels import blocks_of as over

# Each is tokens × inputs × outputs: no multiple of a tile, pieces of 16 bytes, one of each, whole tiles.
SHAPES = [(7, 131, 17), (37, 83, 29), (5, 257, 70), (66, 144, 65), (1, 1, 1), (49, 96, 192), (64, 256, 64)]
GELU_ERROR = 5e-7
# Of the largest value in sight: float32 sums of up to a few hundred terms in two orders.
SUM_ROUNDINGS = 2e-6
STORE, GELU, RESIDUAL = Finish

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def run(gpu: Driver, kernel: str, grid: tuple[int, int], *arguments: np.ndarray | int) -> None:
    """Launch once; arrays are filled with what the kernel made of them."""
    arrays = [each for each in arguments if isinstance(each, np.ndarray)]
    buffers = iter([gpu.upload(array) for array in arrays])
    passed = [next(buffers) if isinstance(each, np.ndarray) else each for each in arguments]
    gpu.launch(gpu.function(gpu.load(SOURCE_OF[kernel]), kernel), grid, passed)
    for array, buffer in zip(arrays, [each for each in passed if not isinstance(each, int)], strict=True):
        gpu.download(buffer, array)


def unwritten(*shape: int, dtype: type = np.float32) -> np.ndarray:
    """What a kernel must fill: NaN, or a number that no result is."""
    return np.full(shape, np.nan if np.issubdtype(dtype, np.floating) else -128, dtype)


def finite() -> np.ndarray:
    return np.ones(1, np.int32)


def operands(generator: np.random.Generator, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    tokens, inputs, outputs = shape
    codes = generator.integers(-127, 128, (tokens, inputs), dtype=np.int8)
    return codes, pack(generator.integers(-1, 2, (outputs, inputs), dtype=np.int8))


def normal(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.standard_normal(shape, dtype=np.float32)


def assert_sums_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=SUM_ROUNDINGS * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_exact_in_any_order_of_threads(gpu, generator, shape):
    codes, packed = operands(generator, shape)
    expected = reference.ternary_matmul(codes, packed)
    for gpu.seed in range(3):
        sums = unwritten(*expected.shape, dtype=np.int32)
        run(gpu, "ternary_matmul", tiles(*sums.shape), codes, packed, sums, *shape)
        np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("kernel", ["ternary_linear", "ternary_linear_row"])
@pytest.mark.parametrize("shape", [(5, 131, 17), (2, 144, 70)], ids=str)
def test_the_output_side_is_rounded_as_the_reference_rounds(gpu, generator, kernel, shape):
    tokens, _, outputs = shape
    codes, packed = operands(generator, shape)
    floats = [generator.uniform(0.01, 1, count).astype(np.float32) for count in (tokens, outputs, outputs)]
    expected = reference.ternary_linear(codes, floats[0], packed, *floats[1:])
    before = normal(generator, *expected.shape)
    grid = tiles(tokens, outputs) if kernel == "ternary_linear" else (over(outputs, WARPS), tokens)
    found = {}
    for finish in (STORE, GELU, RESIDUAL):
        found[finish] = before.copy()
        run(gpu, kernel, grid, codes, floats[0], packed, *floats[1:], found[finish], *shape, finish)
    np.testing.assert_array_equal(found[STORE], expected)
    np.testing.assert_array_equal(found[RESIDUAL], before + expected)
    np.testing.assert_allclose(found[GELU], reference.exact_gelu(expected), atol=GELU_ERROR, rtol=GELU_ERROR)


@pytest.mark.parametrize("shape", [(9, 131), (1, 1), (3, 512)], ids=str)
def test_quantizing_gives_the_reference_codes(gpu, generator, shape):
    x = normal(generator, *shape) * 5
    norm = generator.uniform(0.5, 1.5, shape[1]).astype(np.float32)
    codes, step, flag = unwritten(*shape, dtype=np.int8), unwritten(shape[0]), finite()
    run(gpu, "quantize", (over(shape[0], WARPS), 1), x, norm, codes, step, flag, *shape)
    expected_codes, expected_step = reference.quantize(x, norm)
    np.testing.assert_array_equal(codes, expected_codes)
    np.testing.assert_array_equal(step, expected_step)
    assert flag[0] == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_activation_that_is_no_number_is_told(gpu, generator, bad):
    x = normal(generator, 4, 96)
    x[2, 50] = bad
    one, flags = np.ones(96, np.float32), [finite(), finite()]
    run(gpu, "quantize", (1, 1), x, one, unwritten(4, 96, dtype=np.int8), unwritten(4), flags[0], 4, 96)
    weights, bias = normal(generator, 5, 96), normal(generator, 5)
    run(gpu, "full_linear", (1, 1), x, one, weights, bias, unwritten(4, 5), flags[1], 4, 96, 5, STORE)
    assert [flag[0] for flag in flags] == [0, 0]


@pytest.mark.parametrize("shape", [(7, 131, 17), (66, 40, 65), (1, 1, 1), (64, 96, 128)], ids=str)
def test_a_linear_in_full_precision_normalises_its_input(gpu, generator, shape):
    tokens, inputs, outputs = shape
    x, weights, bias = (
        normal(generator, tokens, inputs),
        normal(generator, outputs, inputs),
        normal(generator, outputs),
    )
    norm = generator.uniform(0.5, 1.5, inputs).astype(np.float32)
    expected = reference.rms_norm(x, norm) @ weights.T + bias
    before = normal(generator, tokens, outputs)
    for finish, wanted in (
        (STORE, expected),
        (RESIDUAL, before + expected),
        (GELU, reference.exact_gelu(expected)),
    ):
        y, flag = before.copy(), finite()
        run(gpu, "full_linear", tiles(tokens, outputs), x, norm, weights, bias, y, flag, *shape, finish)
        assert_sums_close(y, wanted)
        assert flag[0] == 1


@pytest.mark.parametrize("measures", [(12, 1, 3, 24), (28, 3, 4, 70), (10, 1, 10, 5)], ids=str)
def test_patches_become_tokens(gpu, generator, measures):
    size, channels, patch, width = measures
    side, images = size // patch, generator.integers(0, 256, (2, size, size, channels), dtype=np.uint8)
    weights, bias = normal(generator, width, patch * patch * channels), normal(generator, width)
    position, x, flag = (
        normal(generator, side * side, width),
        unwritten(2, side * side, width),
        np.zeros(1, np.int32),
    )
    tokens = 2 * side * side
    arguments = (images, weights, bias, position, x, flag, tokens, size, channels, patch, width)
    run(gpu, "patch_embedding", tiles(tokens, width), *arguments)
    pixels = (images.astype(np.float32) / np.float32(255) - np.float32(0.5)) * np.float32(4)
    patches = pixels.reshape(2, side, patch, side, patch, channels).swapaxes(2, 3).reshape(2, side * side, -1)
    assert_sums_close(x, patches @ weights.T + bias + position)
    assert flag[0] == 1


def attention(qkv: np.ndarray, heads: int, key_heads: int, head_width: int) -> np.ndarray:
    """Head by head in float64, with the whole matrix of scores."""
    images, tokens, _ = qkv.shape
    parts = qkv.astype(np.float64).reshape(images, tokens, heads + 2 * key_heads, head_width).swapaxes(1, 2)
    query, key, value = np.split(parts, [heads, heads + key_heads], axis=1)
    key, value = (np.repeat(each, heads // key_heads, axis=1) for each in (key, value))
    scores = query @ key.swapaxes(2, 3) / np.sqrt(head_width)
    shares = np.exp(scores - scores.max(axis=3, keepdims=True))
    mixed = shares / shares.sum(axis=3, keepdims=True) @ value
    return mixed.swapaxes(1, 2).reshape(images, tokens, heads * head_width)


def attend(
    gpu: Driver, qkv: np.ndarray, heads: int, key_heads: int, head_width: int
) -> tuple[np.ndarray, int]:
    images, tokens, _ = qkv.shape
    mixed, flag = unwritten(images, tokens, heads * head_width), finite()
    grid = (over(tokens * heads // key_heads, THREADS), images * key_heads)
    run(gpu, attention_kernel(head_width), grid, qkv, mixed, flag, tokens, heads, key_heads, head_width)
    return mixed, int(flag[0])


# Each is images × tokens × heads × key heads × head width: one of each, tails of keys and queries, whole
# tiles, several thread blocks, grouped and multi-head, widths of 1 to 64.
ATTENTIONS = [
    *[(1, 1, 1, 1, 1), (2, 49, 3, 1, 32), (1, 33, 2, 1, 5), (1, 64, 2, 1, 64), (2, 70, 4, 1, 48)],
    *[(1, 8, 4, 2, 33), (2, 5, 3, 3, 7), (1, 31, 5, 1, 17)],
]


@pytest.mark.parametrize("shape", ATTENTIONS, ids=str)
def test_attention_never_needs_the_matrix_of_scores(gpu, generator, shape):
    images, tokens, heads, key_heads, head_width = shape
    qkv = normal(generator, images, tokens, (heads + 2 * key_heads) * head_width) * 3
    mixed, all_finite = attend(gpu, qkv, heads, key_heads, head_width)
    assert_sums_close(mixed, attention(qkv, heads, key_heads, head_width))
    assert all_finite


@pytest.mark.parametrize("order", [1, -1], ids=["rising", "falling"])
def test_scores_far_apart_neither_overflow_nor_vanish(gpu, generator, order):
    qkv = normal(generator, 1, 70, 3 * 16)
    query, key = qkv[0, :, :16], qkv[0, :, 16:32]
    query[:] = key[:] = np.eye(1, 16)
    key[:, 0] = np.linspace(-400, 400, 70)[::order]
    mixed, all_finite = attend(gpu, qkv, 1, 1, 16)
    assert_sums_close(mixed, attention(qkv, 1, 1, 16))
    assert all_finite


@pytest.mark.parametrize("part", [0, 1, 2], ids=["query", "key", "value"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_attention_tells_of_what_its_softmax_would_hide(gpu, generator, part, bad):
    qkv = normal(generator, 1, 40, 3 * 8)
    qkv[0, 39, part * 8 + 7] = bad
    assert attend(gpu, qkv, 1, 1, 8)[1] == 0


@pytest.mark.parametrize("shape", [(2, 49, 192), (1, 3, 33), (3, 1, 1)], ids=str)
def test_statistics_of_a_block_are_those_of_its_activations(gpu, generator, shape):
    images, tokens, channels = shape
    blocks, parts = 2, over(channels, 32)
    hidden = [normal(generator, *shape) + 0.5 for _ in range(blocks)]
    codes = [
        generator.integers(-1, 2, shape, dtype=np.int8) * generator.choice([0, 126, 127], shape)
        for _ in hidden
    ]
    codes = [each.astype(np.int8) for each in codes]
    codes[0][:, :, -1] = 0
    sums, statistics = unwritten(blocks, images, parts, 4, dtype=np.float64), unwritten(images, blocks, 4)
    for block in range(blocks):
        run(gpu, "sum_activity", (parts, images), hidden[block], codes[block], sums, block, tokens, channels)
    run(
        gpu,
        "block_statistics",
        (over(images * blocks, WARPS), 1),
        sums,
        statistics,
        images,
        blocks,
        tokens,
        channels,
    )
    for block in range(blocks):
        exact, each = hidden[block].astype(np.float64), codes[block]
        expected = np.stack(
            [
                exact.mean(axis=(1, 2)),
                exact.std(axis=(1, 2)),
                (np.abs(each) == 127).mean(axis=(1, 2)),
                (~each.any(axis=1)).mean(axis=1),
            ],
            axis=1,
        )
        np.testing.assert_allclose(statistics[:, block], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(3, 49, 96, 2), (1, 5, 33, 7), (2, 1, 1, 1)], ids=str)
def test_the_mean_over_tokens_is_normalised_and_classified(gpu, generator, shape):
    images, tokens, width, classes = shape
    x = normal(generator, images, tokens, width)
    norm_weight, norm_bias, bias = (
        normal(generator, width),
        normal(generator, width),
        normal(generator, classes),
    )
    head, pooled = normal(generator, classes, width), unwritten(images, width)
    embedding, logits, flag = unwritten(images, width), unwritten(images, classes), finite()
    run(gpu, "pool", (over(width, 32), images), x, pooled, tokens, width)
    grid = (over(images * classes, WARPS), 1)
    given = (pooled, norm_weight, norm_bias, head, bias, embedding, logits, flag)
    run(gpu, "classify", grid, *given, images, width, classes)
    mean = x.astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(pooled, mean, rtol=0, atol=1e-7)
    centred = mean - mean.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-5) * norm_weight + norm_bias
    np.testing.assert_allclose(embedding, normed, rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits, normed @ head.T + bias, rtol=0, atol=1e-4)
    assert flag[0] == 1


def test_a_fault_ends_the_emulated_gpu_and_says_where(emulation):
    gpu = EmulatedGpu(emulation)
    short, norm = gpu.upload(np.zeros((4, 95), np.float32)), gpu.upload(np.zeros(96, np.float32))
    codes, step = gpu.upload(np.zeros((4, 96), np.int8)), gpu.upload(np.zeros(4, np.float32))
    gpu.launch("quantize", (1, 1), [short, norm, codes, step, gpu.upload(finite()), 4, 96])
    with pytest.raises(EmulationFault, match=r"heap-buffer-overflow(.|\n)*rms_norm.cuh"):
        gpu.download(step, np.zeros(4, np.float32))


LINEAR_MUTATIONS = {
    "no barrier before reading": (
        "        __syncthreads();  // everybody's pieces",
        "        // everybody's",
    ),
    "no barrier before overwriting": ("        __syncthreads();  // nobody reads", "        // nobody reads"),
    "no wait for a copy": ("            medloop::wait_for_all_but<1>();", ""),
    "a stage too short": ("std::uint8_t packed[kTile]", "std::uint8_t packed[kTile - 2]"),
    "outputs past the end stored": ("if (token < of.tokens && output < of.outputs) store", "store"),
    "a plane off": ("packed >> (2 * plane) & ", "packed >> (6 - 2 * plane) & "),
}
ATTENTION_MUTATIONS = {
    "no barrier before reading": ("        __syncthreads();  // everybody's part", "        // everybody's"),
    "no barrier before overwriting": ("        __syncthreads();  // nobody reads", "        // nobody reads"),
    "keys past the end seen": ("i < count ? score(keys[i]) : -INFINITY", "score(keys[i])"),
    "queries past the end stored": ("        if (row >= of.rows()) continue;\n", ""),
    "what was mixed is not scaled down": (
        "column = __fmul_rn(column, shrink)",
        "static_cast<void>(column), static_cast<void>(shrink)",
    ),
    "the total is not scaled down": ("        total = __fmul_rn(total, own_shrink);\n", ""),
    "a neighbour's sum left out": (" of_neighbour(sums[3], 2)", " 0.0F"),
    "shares of the wrong query": (
        "shares[i] = of_neighbour(share, i)",
        "shares[i] = of_neighbour(share, 3 - i)",
    ),
    "tokens past the end brought": ("token < tokens ? column_of", "true ? column_of"),
}


def mutant(folder: Path, source: str, before: str, after: str) -> EmulatedGpu:
    for file in SOURCES.glob("*.cu*"):
        shutil.copy(file, folder)
    kernel = folder / source
    assert before in kernel.read_text()
    kernel.write_text(kernel.read_text().replace(before, after))
    return EmulatedGpu(build(folder, folder))


@pytest.mark.slow
@pytest.mark.parametrize("mutation", LINEAR_MUTATIONS)
def test_the_emulation_catches_a_wrong_linear(tmp_path, generator, mutation):
    gpu = mutant(tmp_path, "ternary_linear.cu", *LINEAR_MUTATIONS[mutation])
    shape = (66, 384, 65)
    codes, packed = operands(generator, shape)
    sums = unwritten(66, 65, dtype=np.int32)
    try:
        run(gpu, "ternary_matmul", tiles(66, 65), codes, packed, sums, *shape)
    except EmulationFault:
        return
    assert (sums != reference.ternary_matmul(codes, packed)).any()


@pytest.mark.slow
@pytest.mark.parametrize("mutation", ATTENTION_MUTATIONS)
def test_the_emulation_catches_a_wrong_attention(tmp_path, generator, mutation):
    gpu = mutant(tmp_path, "attention.cu", *ATTENTION_MUTATIONS[mutation])
    qkv = normal(generator, 2, 70, 5 * 16)
    try:
        mixed, _ = attend(gpu, qkv, 3, 1, 16)
    except EmulationFault:
        return
    error = np.abs(mixed - attention(qkv, 3, 1, 16)).max()
    assert not error < 1e-4  # a NaN is caught too
