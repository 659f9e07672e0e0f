"""The plugin's kernels as they are put into a stream, on the emulated GPU, against the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from emulated_gpu import Buffer, EmulatedGpu, build
from medloop_kernels import LinearWeights, pack, reference
from medloop_kernels.cuda.driver import Grid
from medloop_kernels.tensorrt.fields import TernaryLinearFields, fields_of
from medloop_kernels.tensorrt.gpu import Address
from medloop_kernels.tensorrt.ternary_linear import TernaryLinearOnGpu

GELU_ERROR = 5e-7
STREAM = 7


class EmulatedStream:
    """A `medloop_kernels.tensorrt.gpu.Gpu`: addresses are names of the emulated GPU's buffers."""

    def __init__(self, gpu: EmulatedGpu) -> None:
        self.gpu = gpu
        self.buffers: dict[Address, Buffer] = {}

    def function(self, source: str, name: str) -> str:
        return self.gpu.function(self.gpu.load(source), name)

    def allocate(self, size: int) -> Address:
        buffer = self.gpu.allocate(size)
        self.buffers[Address(buffer.name)] = buffer
        return Address(buffer.name)

    def free(self, address: Address) -> None:
        del self.buffers[address]

    def upload(self, array: np.ndarray, to: Address, _stream: int) -> None:
        self.gpu.overwrite(self.buffers[to], array)

    def set_word(self, address: Address, word: int, stream: int) -> None:
        self.upload(np.array([word], np.int32), address, stream)

    def launch(self, function: str, grid: Grid, arguments: Sequence[int], stream: int) -> None:
        assert stream == STREAM
        buffers = [self.buffers[each] if isinstance(each, Address) else int(each) for each in arguments]
        self.gpu.launch(function, grid, buffers)

    def synchronize(self, _stream: int) -> None:
        """The emulated GPU does one thing after the other."""

    def download(self, address: Address, into: np.ndarray) -> np.ndarray:
        self.gpu.download(self.buffers[address], into)
        return into


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedStream]:
    gpu = EmulatedGpu(build(tmp_path_factory.mktemp("cuda")))
    yield EmulatedStream(gpu)
    gpu.close()


def fields(generator: np.random.Generator, inputs: int, outputs: int, *, gelu: bool) -> TernaryLinearFields:
    scale, bias = generator.uniform(0.01, 1, (2, outputs)).astype(np.float32)
    norm = generator.uniform(0.5, 1.5, inputs).astype(np.float32)
    codes = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
    return fields_of(LinearWeights(pack(codes), inputs, bias, scale, norm), gelu=gelu)


def run(stream: EmulatedStream, linear: TernaryLinearFields, x: np.ndarray) -> list[np.ndarray]:
    """y, codes and finite."""
    tokens, inputs = x.shape
    x_on_gpu = stream.allocate(x.nbytes)
    stream.upload(x, x_on_gpu, STREAM)
    made = [
        np.zeros((tokens, linear.outputs), np.float32),
        np.zeros((tokens, inputs), np.int8),
        np.zeros(1, np.int32),
    ]
    y, codes, finite = (stream.allocate(array.nbytes) for array in made)
    step = stream.allocate(4 * tokens)
    TernaryLinearOnGpu(linear, stream).enqueue(x_on_gpu, (y, codes, finite), step, tokens, STREAM)
    return [stream.download(address, array) for address, array in zip((y, codes, finite), made, strict=True)]


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(3, 131, 17), (49, 96, 160), (66, 144, 70)], ids=str)
def test_a_linear_in_a_stream_gives_the_references_results(stream, generator, shape, gelu):
    tokens, inputs, outputs = shape
    linear = fields(generator, inputs, outputs, gelu=gelu)
    x = generator.standard_normal((tokens, inputs), dtype=np.float32)
    y, codes, finite = run(stream, linear, x)
    expected_codes, step = reference.quantize(x, linear.norm)
    np.testing.assert_array_equal(codes, expected_codes)
    weights = (linear.packed, linear.scale, linear.bias)
    expected = reference.ternary_linear(expected_codes, step, *weights, gelu=gelu)
    np.testing.assert_allclose(y, expected, atol=GELU_ERROR if gelu else 0, rtol=GELU_ERROR if gelu else 0)
    assert finite == 1


def test_a_value_that_is_no_number_is_flagged(stream, generator):
    x = generator.standard_normal((5, 96), dtype=np.float32)
    x[3, 7] = np.nan
    _, _, finite = run(stream, fields(generator, 96, 32, gelu=False), x)
    assert finite == 0


def test_a_linear_gives_its_memory_back(stream, generator):
    before = set(stream.buffers)
    linear = TernaryLinearOnGpu(fields(generator, 96, 32, gelu=False), stream)
    assert len(stream.buffers) == len(before) + 4
    del linear
    assert set(stream.buffers) == before
