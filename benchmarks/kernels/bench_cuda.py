"""Speed of the CUDA kernels against cuBLASLt's int8 and torch's 16-bit floats, in the same run on one GPU.

    python benchmarks/kernels/bench_cuda.py            a table
    python benchmarks/kernels/bench_cuda.py --json     one JSON line a figure

Needs a GPU, a torch that has CUDA, and `make cuda`; where one is missing it says which and gives no figure.

Products: ours reads two bits a weight, `torch._int_mm` (cuBLASLt) int8 weights, and both give int32; torch's
float16 product is what a network without quantisation takes. Each is a CUDA graph of as many launches:
what is compared is the GPU's time, not Python's. Operands stay in the GPU's cache between launches.

Networks: from images in the host's memory to logits there. The peers are the full-precision network of the
same shape in float16 and bfloat16, each as a graph too.

The limit is what the GPU allows: the multiply-accumulates, at the rates that large int8 and float32 products
of torch's reach in the same run, or the bytes read and written once, at the rate of a copy in its memory,
whichever takes longer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

from figures import Figure, compare, medians, run

import numpy as np  # isort: skip
import torch
from medloop_kernels import BackendUnavailable, pack, select
from medloop_kernels.cuda.driver import open_driver
from medloop_kernels.cuda.kernels import Kernels, tiles
from medloop_model.architecture import Architecture, paper, ward
from medloop_model.engine import Engine
from medloop_model.network import BiTMedViT
from medloop_model.training.export import export_package
from work import multiply_accumulates

LAUNCHES = 50  # of one graph
CUBLASLT, FLOAT16, BFLOAT16 = "cuBLASLt int8", "torch float16", "torch bfloat16"
CLASSES = ("normal", "opacity")
# Each is tokens × inputs × outputs: linears of the published network, one image and eight, and of the ward's.
SHAPES = [
    *[(1024, 512, 2048), (1024, 2048, 512), (8192, 512, 2048), (8192, 2048, 512)],
    *[(49, 96, 192), (784, 96, 192)],
]
NETWORKS = {"paper": paper(1, CLASSES), "ward": ward(28, 1, CLASSES)}
BATCHES = (1, 8, 64)
LARGE = 8192  # rows and columns of a product that fills the GPU
COPIED = 1 << 30  # bytes, far more than the cache holds


@dataclass(frozen=True)
class Peaks:
    """What this GPU reaches: multiply-accumulates a second, bytes a second read and written."""

    int8: float
    float32: float
    bytes: float

    def seconds(self, int8: float, float32: float, moved: float) -> float:
        """The least that such work takes."""
        return max(int8 / self.int8 + float32 / self.float32, moved / self.bytes)


@cache
def peaks() -> Peaks:
    """Measured, by torch."""
    codes = torch.randint(-127, 128, (LARGE, LARGE), dtype=torch.int8, device="cuda")
    floats = torch.randn(LARGE, LARGE, device="cuda")
    source = torch.randint(-127, 128, (COPIED,), dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    calls = {
        "int8": partial(torch._int_mm, codes, codes.t()),
        "float32": partial(torch.matmul, floats, floats),
        "copy": partial(target.copy_, source),
    }
    seconds = medians({name: partial(waited, call) for name, call in calls.items()}, rounds=10)
    return Peaks(LARGE**3 / seconds["int8"], LARGE**3 / seconds["float32"], 2 * COPIED / seconds["copy"])


def missing() -> str | None:
    """What this machine lacks for the figures; None where it has everything."""
    try:
        select("cuda")
    except BackendUnavailable as unavailable:
        return str(unavailable)
    return None if torch.cuda.is_available() else "this torch has no CUDA: install a build that has."


def waited(call: Callable[[], object]) -> None:
    """Call and wait: torch's context is ours too, so it waits for our stream as well."""
    call()
    torch.cuda.synchronize()


def torch_graph(call: Callable[[], object], launches: int) -> Callable[[], object]:
    """A graph of so many calls, warmed up beside the default stream as torch asks for."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            call()
    return partial(waited, graph.replay)


def bench_products(seed: int, rounds: int) -> Iterator[Figure]:
    """The exact product alone, from codes to int32 sums."""
    generator = np.random.default_rng(seed)
    driver = open_driver()
    kernels = Kernels(driver)
    for tokens, inputs, outputs in SHAPES:
        codes = generator.integers(-127, 128, (tokens, inputs), dtype=np.int8)
        weights = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
        packed = pack(weights)
        sums_bytes = 4 * tokens * outputs
        buffers = [driver.upload(codes), driver.upload(packed), driver.allocate(sums_bytes)]
        launch = partial(
            kernels.launch, "ternary_matmul", tiles(tokens, outputs), *buffers, tokens, inputs, outputs
        )
        graph = driver.capture(lambda launch=launch: [launch() for _ in range(LAUNCHES)])
        x, w = torch.from_numpy(codes).cuda(), torch.from_numpy(weights).cuda().t()
        moved = codes.nbytes + packed.nbytes + sums_bytes
        yield from compare(
            f"product {tokens}x{inputs}x{outputs} {driver.architecture}",
            "us",
            partial(waited, graph),
            {
                CUBLASLT: torch_graph(partial(torch._int_mm, x, w), LAUNCHES),
                FLOAT16: torch_graph(partial(torch.matmul, x.half(), w.half()), LAUNCHES),
            },
            seed=seed,
            rounds=rounds,
            scale=1e6 / LAUNCHES,
            goals={CUBLASLT: 1.0},
            limit=LAUNCHES * peaks().seconds(tokens * inputs * outputs, 0, moved),
        )


def bench_networks(seed: int, rounds: int) -> Iterator[Figure]:
    """Whole networks, images and results carried to and fro."""
    kernels = select("cuda")
    for name, architecture in NETWORKS.items():
        engine = Engine(export_package(BiTMedViT(architecture, seed), {}), kernels)
        size = architecture.image_size
        for batch in BATCHES:
            images = np.random.default_rng(seed).integers(0, 256, (batch, size, size, 1), dtype=np.uint8)
            with torch.inference_mode():
                yield from compare(
                    f"{name} batch {batch} {kernels.variant}",
                    "ms/image",
                    partial(engine, images),
                    {
                        FLOAT16: float_peer(architecture, torch.float16, images, seed),
                        BFLOAT16: float_peer(architecture, torch.bfloat16, images, seed),
                    },
                    seed=seed,
                    rounds=rounds,
                    scale=1e3 / batch,
                    goals={},
                    limit=network_limit(architecture, engine, batch),
                )


def network_limit(architecture: Architecture, engine: Engine, batch: int) -> float:
    """Seconds of a batch: its arithmetic, or its images and the weights read once."""
    assert engine.compiled is not None
    int8, float32 = multiply_accumulates(architecture)
    pixels = architecture.image_size**2 * architecture.channels
    return peaks().seconds(batch * int8, batch * float32, batch * pixels + engine.compiled.weight_bytes)


def float_peer(
    architecture: Architecture, dtype: torch.dtype, images: np.ndarray, seed: int
) -> Callable[[], object]:
    """Pixels up, the graph of the full-precision network, logits down."""
    network = BiTMedViT(architecture.full_precision(), seed).eval().to("cuda", dtype)
    pixels = torch.from_numpy((images / 255).astype(np.float32)).to(dtype)
    given = pixels.cuda()
    logits: list[torch.Tensor] = []
    replay = torch_graph(lambda: logits.append(network(given)), 1)

    def call() -> torch.Tensor:
        given.copy_(pixels)
        replay()
        return logits[-1].cpu()

    return call


if __name__ == "__main__":
    lacking = missing()
    if lacking is not None:
        print(f"no figures: {lacking}", file=sys.stderr)
    run(__doc__, 40, [bench_products, bench_networks] if lacking is None else [])
