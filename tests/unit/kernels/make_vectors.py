"""Writes vectors.safetensors, the test vectors that pin packed bytes and exact sums on every machine.

Run `python tests/unit/kernels/make_vectors.py` after a deliberate change of the format, never to make a
test pass. Everything comes from the reference and from one seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from medloop_kernels import pack, reference
from numpy.typing import NDArray
from safetensors.numpy import save_file

VECTORS = Path(__file__).with_name("vectors.safetensors")

# (tokens, inputs, outputs): a layer of the network, one of each, primes around the tiles, several blocks.
SHAPES = [(7, 96, 160), (1, 1, 1), (5, 131, 17), (3, 257, 19), (2, 128, 16)]
SEED = 20240613


def vectors() -> dict[str, NDArray[np.generic]]:
    """Operands and reference results by `{tokens}x{inputs}x{outputs}/{name}`."""
    generator = np.random.default_rng(SEED)
    tensors: dict[str, NDArray[np.generic]] = {}
    for tokens, inputs, outputs in SHAPES:
        weights = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
        x = generator.standard_normal((tokens, inputs), dtype=np.float32)
        norm_weight = generator.uniform(0.5, 1.5, inputs).astype(np.float32)
        codes, step = reference.quantize(x, norm_weight)
        case = {
            "weights": weights,
            "packed": pack(weights),
            "x": x,
            "norm_weight": norm_weight,
            "codes": codes,
            "step": step,
            "sums": reference.ternary_matmul(codes, pack(weights)),
        }
        tensors |= {f"{tokens}x{inputs}x{outputs}/{name}": tensor for name, tensor in case.items()}
    return tensors


if __name__ == "__main__":
    save_file(vectors(), VECTORS)
