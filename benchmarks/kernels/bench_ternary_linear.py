"""Speed of the ternary product and of the whole engine, each against peers measured in the same run.

    python benchmarks/kernels/bench_ternary_linear.py            a table
    python benchmarks/kernels/bench_ternary_linear.py --json     one JSON line a figure

One thread. Ours and a peer's calls alternate, so that a busy machine slows both; medians. A ratio above 1
means ours is faster. The peers of the product are numpy's float32 product and torch's int8 product, which
get their weights unpacked for free: ours reads two bits a weight and unpacks them on every call. Torch's
has no fast path on processors without VNNI, where numpy's is the peer to look at. The peer
of the engine is the same network in torch, which computes with float32 and is what training runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when numpy and torch are imported, hence above them

import numpy as np  # noqa: E402
import torch  # noqa: E402
from medloop_kernels import pack, select  # noqa: E402
from medloop_model.architecture import ward  # noqa: E402
from medloop_model.engine import Engine  # noqa: E402
from medloop_model.network import BiTMedViT  # noqa: E402
from medloop_model.training.export import export_package, network_from  # noqa: E402

# Each is tokens × inputs × outputs: the ward layers for one image and for 16, then the published model's.
SHAPES = [(49, 96, 160), (49, 96, 192), (49, 192, 96), (784, 96, 192), (1024, 512, 2048)]
BATCHES = [1, 16]
WARM_UP = 3


@dataclass(frozen=True)
class Figure:
    """One measured ratio; `limit` is null where no bound is known."""

    name: str
    value: float
    unit: str
    peer: str
    peer_value: float
    ratio: float
    limit: float | None
    goal: float
    met: bool
    seed: int
    n: int


def measure(
    name: str,
    unit: str,
    ours: Callable[[], object],
    peers: dict[str, Callable[[], object]],
    *,
    seed: int,
    rounds: int,
    scale: float,
    goal: float,
) -> Iterator[Figure]:
    """Alternate the calls; `scale` turns seconds into `unit`."""
    calls = {"": ours, **peers}
    seconds: dict[str, list[float]] = {call: [] for call in calls}
    for turn in range(WARM_UP + rounds):
        for call, function in calls.items():
            start = time.perf_counter()
            function()
            if turn >= WARM_UP:
                seconds[call].append(time.perf_counter() - start)
    value = statistics.median(seconds.pop("")) * scale
    for peer, measured in seconds.items():
        peer_value = statistics.median(measured) * scale
        ratio = peer_value / value
        yield Figure(name, value, unit, peer, peer_value, ratio, None, goal, ratio >= goal, seed, rounds)


def bench_products(seed: int, rounds: int) -> Iterator[Figure]:
    """The exact product alone, at the goal of no slower than a peer."""
    generator = np.random.default_rng(seed)
    kernels = select()
    for tokens, inputs, outputs in SHAPES:
        codes = generator.integers(-127, 128, (tokens, inputs), dtype=np.int8)
        weights = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
        packed = pack(weights)
        x, weights_transposed = codes.astype(np.float32), weights.T.astype(np.float32)
        torch_codes, torch_weights = torch.from_numpy(codes), torch.from_numpy(weights).t()
        yield from measure(
            f"ternary_matmul {tokens}x{inputs}x{outputs} {kernels.variant}",
            "us",
            partial(kernels.ternary_matmul, codes, packed),
            {
                "numpy float32": partial(np.matmul, x, weights_transposed),
                "torch._int_mm": partial(torch._int_mm, torch_codes, torch_weights),
            },
            seed=seed,
            rounds=rounds,
            scale=1e6,
            goal=1.0,
        )


def bench_engine(seed: int, rounds: int) -> Iterator[Figure]:
    """The ward network on 28 px grey images, per image."""
    architecture = ward(28, 1, ("normal", "opacity"))
    package = export_package(BiTMedViT(architecture, seed), {})
    engine, network = Engine(package), network_from(package)
    images = np.random.default_rng(seed).integers(0, 256, (max(BATCHES), 28, 28), dtype=np.uint8)
    pixels = torch.from_numpy(images[..., None].astype(np.float32) / np.float32(255))
    for batch in BATCHES:
        with torch.inference_mode():
            yield from measure(
                f"engine ward 28 px batch {batch} {engine.kernels.variant}",
                "ms/image",
                partial(engine, images[:batch]),
                {"torch": partial(network, pixels[:batch])},
                seed=seed,
                rounds=rounds,
                scale=1e3 / batch,
                goal=1.0,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    parser.add_argument("--seed", type=int, default=0, help="of operands, weights and images (default 0)")
    parser.add_argument("--rounds", type=int, default=40, help="measurements a figure (default 40)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for bench in (bench_products, bench_engine):
        for figure in bench(arguments.seed, arguments.rounds):
            if arguments.json:
                print(json.dumps(asdict(figure)), flush=True)
            else:
                print(
                    f"{figure.name:40} {figure.value:9.2f} {figure.unit:8}  "
                    f"{figure.peer} {figure.peer_value:9.2f}  {figure.ratio:5.2f}x"
                    f"{'' if figure.met else f'  below the goal of {figure.goal}x'}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
