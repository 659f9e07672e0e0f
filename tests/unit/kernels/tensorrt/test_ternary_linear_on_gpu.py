"""The kernels of the plugin in a stream of the emulated GPU, and of a real one, against the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from emulated_gpu import Buffer, EmulatedGpu, build
from medloop_kernels import LinearWeights, available, pack, reference
from medloop_kernels.cuda.driver import Grid
from medloop_kernels.tensorrt.fields import TernaryLinearFields, fields_of
from medloop_kernels.tensorrt.gpu import Address, Gpu, first_gpu
from medloop_kernels.tensorrt.ternary_linear import TernaryLinearOnGpu

GELU_ERROR = 5e-7
# The emulated GPU, and this machine's where it has one.
GPUS = ["emulated", *(backend.variant for backend in available() if backend.name == "cuda")]


class EmulatedStream:
    """A `medloop_kernels.tensorrt.gpu.Gpu`: addresses are names of the emulated GPU's buffers."""

    def __init__(self, gpu: EmulatedGpu) -> None:
        self.gpu = gpu
        self.buffers: dict[Address, Buffer] = {}

    def stream(self) -> int:
        return 7

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
        assert stream == self.stream()
        buffers = [self.buffers[each] if isinstance(each, Address) else int(each) for each in arguments]
        self.gpu.launch(function, grid, buffers)

    def synchronize(self, _stream: int) -> None:
        """The emulated GPU does one thing after the other."""

    def download(self, address: Address, into: np.ndarray, _stream: int) -> None:
        self.gpu.download(self.buffers[address], into)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedStream]:
    gpu = EmulatedGpu(build(tmp_path_factory.mktemp("cuda")))
    yield EmulatedStream(gpu)
    gpu.close()


@pytest.fixture(scope="module", params=GPUS)
def gpu(request: pytest.FixtureRequest) -> EmulatedStream | Gpu:
    return request.getfixturevalue("emulated") if request.param == "emulated" else first_gpu()


def fields(generator: np.random.Generator, inputs: int, outputs: int, *, gelu: bool) -> TernaryLinearFields:
    scale, bias = generator.uniform(0.01, 1, (2, outputs)).astype(np.float32)
    norm = generator.uniform(0.5, 1.5, inputs).astype(np.float32)
    codes = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
    return fields_of(LinearWeights(pack(codes), inputs, bias, scale, norm), gelu=gelu)


def run(gpu: EmulatedStream | Gpu, linear: TernaryLinearFields, x: np.ndarray) -> list[np.ndarray]:
    """y, codes and finite."""
    tokens, inputs = x.shape
    stream, x_on_gpu = gpu.stream(), gpu.allocate(x.nbytes)
    gpu.upload(x, x_on_gpu, stream)
    made = [
        np.zeros((tokens, linear.outputs), np.float32),
        np.zeros((tokens, inputs), np.int8),
        np.zeros(1, np.int32),
    ]
    y, codes, finite = (gpu.allocate(array.nbytes) for array in made)
    step = gpu.allocate(4 * tokens)
    on_gpu = TernaryLinearOnGpu(linear, gpu)
    on_gpu.enqueue(x_on_gpu, (y, codes, finite), step, tokens, stream)
    for address, array in zip((y, codes, finite), made, strict=True):
        gpu.download(address, array, stream)
    gpu.synchronize(stream)
    for address in (x_on_gpu, y, codes, finite, step):
        gpu.free(address)
    return made


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(3, 131, 17), (49, 96, 160), (66, 144, 70)], ids=str)
def test_a_linear_in_a_stream_gives_the_references_results(gpu, generator, shape, gelu):
    tokens, inputs, outputs = shape
    linear = fields(generator, inputs, outputs, gelu=gelu)
    x = generator.standard_normal((tokens, inputs), dtype=np.float32)
    y, codes, finite = run(gpu, linear, x)
    expected_codes, step = reference.quantize(x, linear.norm)
    np.testing.assert_array_equal(codes, expected_codes)
    weights = (linear.packed, linear.scale, linear.bias)
    expected = reference.ternary_linear(expected_codes, step, *weights, gelu=gelu)
    np.testing.assert_allclose(y, expected, atol=GELU_ERROR if gelu else 0, rtol=GELU_ERROR if gelu else 0)
    assert finite == 1


def test_a_value_that_is_no_number_is_flagged(gpu, generator):
    x = generator.standard_normal((5, 96), dtype=np.float32)
    x[3, 7] = np.nan
    _, _, finite = run(gpu, fields(generator, 96, 32, gelu=False), x)
    assert finite == 0


def test_a_linear_gives_its_memory_back(emulated, generator):
    before = set(emulated.buffers)
    linear = TernaryLinearOnGpu(fields(generator, 96, 32, gelu=False), emulated)
    assert len(emulated.buffers) == len(before) + 4
    del linear
    assert set(emulated.buffers) == before
