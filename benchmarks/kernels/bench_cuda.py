"""Speed of the CUDA kernels against cuBLASLt's int8 and torch's float16, measured in the same run on one GPU.

    python benchmarks/kernels/bench_cuda.py            a table
    python benchmarks/kernels/bench_cuda.py --json     one JSON line a figure

Needs a GPU, a torch that has CUDA, and `make cuda`; where one is missing it says which and gives no figure.
It has been written without a GPU and never run on one.

Products: ours reads two bits a weight, `torch._int_mm` (cuBLASLt) int8 weights, and both give int32; torch's
float16 product is what a network without quantisation takes. Each is a CUDA graph of as many launches:
what is compared is the GPU's time, not Python's. Networks: from images in the host's memory to logits there;
the peer is the full-precision network of the same shape in float16, as a graph too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

from figures import Figure, compare, run

import numpy as np  # isort: skip
import torch
from medloop_kernels import BackendUnavailable, pack, select
from medloop_kernels.cuda.driver import open_driver
from medloop_kernels.cuda.kernels import Kernels, tiles
from medloop_model.architecture import paper, ward
from medloop_model.engine import Engine
from medloop_model.network import BiTMedViT
from medloop_model.training.export import export_package

LAUNCHES = 50  # of one graph
CUBLASLT, FLOAT16 = "cuBLASLt int8", "torch float16"
CLASSES = ("normal", "opacity")
# Each is tokens × inputs × outputs: linears of the published network, one image and eight, and of the ward's.
SHAPES = [
    *[(1024, 512, 2048), (1024, 2048, 512), (8192, 512, 2048), (8192, 2048, 512)],
    *[(49, 96, 192), (784, 96, 192)],
]
NETWORKS = {"paper": paper(1, CLASSES), "ward": ward(28, 1, CLASSES)}
BATCHES = (1, 16)


def missing() -> str | None:
    """What this machine lacks for the figures; None where it has everything."""
    try:
        select("cuda")
    except BackendUnavailable as unavailable:
        return str(unavailable)
    return None if torch.cuda.is_available() else "this torch has no CUDA: install a build that has."


def replayed(replay: Callable[[], object]) -> None:
    """Replay a graph and wait: torch's context is ours too, so it waits for our stream as well."""
    replay()
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
    return partial(replayed, graph.replay)


def bench_products(seed: int, rounds: int) -> Iterator[Figure]:
    """The exact product alone, from codes to int32 sums."""
    generator = np.random.default_rng(seed)
    driver = open_driver()
    kernels = Kernels(driver)
    for tokens, inputs, outputs in SHAPES:
        codes = generator.integers(-127, 128, (tokens, inputs), dtype=np.int8)
        weights = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
        buffers = [
            *(driver.upload(codes), driver.upload(pack(weights))),
            driver.allocate(4 * tokens * outputs),
        ]
        launch = partial(
            kernels.launch, "ternary_matmul", tiles(tokens, outputs), *buffers, tokens, inputs, outputs
        )
        graph = driver.capture(lambda launch=launch: [launch() for _ in range(LAUNCHES)])
        x, w = torch.from_numpy(codes).cuda(), torch.from_numpy(weights).cuda().t()
        yield from compare(
            f"product {tokens}x{inputs}x{outputs} {driver.architecture}",
            "us",
            partial(replayed, graph),
            {
                CUBLASLT: torch_graph(partial(torch._int_mm, x, w), LAUNCHES),
                FLOAT16: torch_graph(partial(torch.matmul, x.half(), w.half()), LAUNCHES),
            },
            seed=seed,
            rounds=rounds,
            scale=1e6 / LAUNCHES,
            goals={CUBLASLT: 1.0},
        )


def bench_networks(seed: int, rounds: int) -> Iterator[Figure]:
    """Whole networks, images and results carried to and fro."""
    kernels = select("cuda")
    for name, architecture in NETWORKS.items():
        engine = Engine(export_package(BiTMedViT(architecture, seed), {}), kernels)
        network = BiTMedViT(architecture.full_precision(), seed).eval().half().cuda()
        size = architecture.image_size
        for batch in BATCHES:
            images = np.random.default_rng(seed).integers(0, 256, (batch, size, size, 1), dtype=np.uint8)
            with torch.inference_mode():
                yield from compare(
                    f"{name} batch {batch} {kernels.variant}",
                    "ms/image",
                    partial(engine, images),
                    {FLOAT16: float16_peer(network, images)},
                    seed=seed,
                    rounds=rounds,
                    scale=1e3 / batch,
                    goals={},
                )


def float16_peer(network: BiTMedViT, images: np.ndarray) -> Callable[[], object]:
    """Pixels up, the network's graph, logits down."""
    pixels = torch.from_numpy((images / 255).astype(np.float16))
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
