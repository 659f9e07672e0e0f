"""The .cu files, run on a host by `emulated_gpu.h` under sanitizers, against the reference bit for bit.

What this cannot show: that a GPU's registers lie as PTX's manual says, and how fast it is.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from medloop_kernels import pack, reference

HERE = Path(__file__).parent
SOURCES = Path(__file__).parents[4] / "kernels" / "medloop_kernels" / "cuda"
FLAGS = ["-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-ffp-contract=off"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
QUANTIZE, MATMUL, LINEAR, LINEAR_ROW = range(4)

# Each is tokens × inputs × outputs: no multiple of a tile, pieces of 16 bytes, one of each, whole tiles.
SHAPES = [(7, 131, 17), (37, 83, 29), (5, 257, 70), (66, 144, 65), (1, 1, 1), (49, 96, 192), (64, 256, 64)]
GELU_ERROR = 5e-7

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

Run = Callable[..., bytes]


def build(folder: Path, sources: Path = SOURCES) -> Path:
    program = folder / "run_kernel"
    command = [
        "g++",
        *FLAGS,
        *SANITIZERS,
        f"-I{HERE}",
        f"-I{sources}",
        HERE / "run_kernel.cpp",
        "-o",
        program,
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return program


def run(program: Path, kernel: int, shape: tuple[int, int, int], *operands: np.ndarray, **more: int) -> bytes:
    header = np.array([kernel, *shape, more.get("gelu", 0), more.get("seed", 0)], np.int32)
    given = b"".join(np.ascontiguousarray(operand).tobytes() for operand in (header, *operands))
    finished = subprocess.run([program], input=given, capture_output=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr.decode()[-3000:]
    return finished.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("cuda"))


def operands(generator: np.random.Generator, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    tokens, inputs, outputs = shape
    codes = generator.integers(-127, 128, (tokens, inputs), dtype=np.int8)
    return codes, pack(generator.integers(-1, 2, (outputs, inputs), dtype=np.int8))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_exact_in_any_order_of_threads(program, generator, shape):
    codes, packed = operands(generator, shape)
    expected = reference.ternary_matmul(codes, packed)
    for seed in range(3):
        found = np.frombuffer(run(program, MATMUL, shape, codes, packed, seed=seed), np.int32)
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("kernel", [LINEAR, LINEAR_ROW])
@pytest.mark.parametrize("shape", [(5, 131, 17), (2, 144, 70)], ids=str)
def test_the_output_side_is_rounded_as_the_reference_rounds(program, generator, kernel, shape):
    tokens, _, outputs = shape
    codes, packed = operands(generator, shape)
    floats = [generator.uniform(0.01, 1, count).astype(np.float32) for count in (tokens, outputs, outputs)]
    for gelu in (False, True):
        expected = reference.ternary_linear(codes, floats[0], packed, *floats[1:], gelu=gelu)
        answer = run(program, kernel, shape, codes, packed, *floats, gelu=int(gelu))
        found = np.frombuffer(answer, np.float32).reshape(expected.shape)
        if gelu:
            np.testing.assert_allclose(found, expected, atol=GELU_ERROR, rtol=GELU_ERROR)
        else:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(9, 131, 1), (1, 1, 1), (3, 512, 1)], ids=str)
def test_quantizing_gives_the_reference_codes(program, generator, shape):
    tokens, inputs, _ = shape
    x = generator.standard_normal((tokens, inputs), dtype=np.float32) * 5
    norm = generator.uniform(0.5, 1.5, inputs).astype(np.float32)
    answer = run(program, QUANTIZE, shape, x, norm)
    codes, step = reference.quantize(x, norm)
    assert answer == codes.tobytes() + step.tobytes() + np.int32(1).tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_activation_that_is_no_number_is_told(program, generator, bad):
    x = generator.standard_normal((4, 96), dtype=np.float32)
    x[2, 50] = bad
    answer = run(program, QUANTIZE, (4, 96, 1), x, np.ones(96, np.float32))
    assert answer.endswith(np.int32(0).tobytes())


MUTATIONS = {
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


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_emulation_catches(tmp_path, generator, mutation):
    for source in SOURCES.glob("*.cu*"):
        shutil.copy(source, tmp_path)
    kernel = tmp_path / "ternary_linear.cu"
    before, after = MUTATIONS[mutation]
    assert before in kernel.read_text()
    kernel.write_text(kernel.read_text().replace(before, after))
    mutant = build(tmp_path, tmp_path)
    shape = (66, 384, 65)
    codes, packed = operands(generator, shape)
    expected = reference.ternary_matmul(codes, packed).tobytes()
    with pytest.raises(AssertionError):
        assert run(mutant, MATMUL, shape, codes, packed) == expected
