"""Speed of the single ternary product against numpy's and torch's, measured in the same run.

    python benchmarks/kernels/bench_ternary_linear.py            a table
    python benchmarks/kernels/bench_ternary_linear.py --json     one JSON line a figure

One thread. The peers get their weights unpacked for free: ours reads two bits a weight and unpacks them on
every call, as only the reference does; a compiled network (bench_whole_network.py) blocks them once. Torch's
int8 product has no fast path on processors without VNNI, where numpy's is the peer to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from figures import Figure, compare, run

import numpy as np  # isort: skip
import torch
from medloop_kernels import pack, select

# Each is tokens × inputs × outputs: the ward layers for one image and for 16, then the published model's.
SHAPES = [(49, 96, 160), (49, 96, 192), (49, 192, 96), (784, 96, 192), (1024, 512, 2048)]


def bench_products(seed: int, rounds: int) -> Iterator[Figure]:
    """The exact product alone, at the goal of no slower than numpy."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(seed)
    kernels = select()
    for tokens, inputs, outputs in SHAPES:
        codes = generator.integers(-127, 128, (tokens, inputs), dtype=np.int8)
        weights = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
        packed = pack(weights)
        x, weights_transposed = codes.astype(np.float32), weights.T.astype(np.float32)
        torch_codes, torch_weights = torch.from_numpy(codes), torch.from_numpy(weights).t()
        yield from compare(
            f"product {tokens}x{inputs}x{outputs} {kernels.variant}",
            "us",
            partial(kernels.ternary_matmul, codes, packed),
            {
                "numpy float32": partial(np.matmul, x, weights_transposed),
                "torch._int_mm": partial(torch._int_mm, torch_codes, torch_weights),
            },
            seed=seed,
            rounds=rounds,
            scale=1e6,
            goals={"numpy float32": 1.0, "torch._int_mm": 1.0},
        )


if __name__ == "__main__":
    run(__doc__, 40, [bench_products])
