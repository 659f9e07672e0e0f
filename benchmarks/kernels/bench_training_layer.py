"""A ternary layer forward and back in training, beside torch's own operations, measured in the same run.

    python benchmarks/kernels/bench_training_layer.py            a table
    python benchmarks/kernels/bench_training_layer.py --json     one JSON line a figure

One thread. The peer is BitNet's layer as its authors write it: norm, both roundings with what they cut off
detached, and a linear layer, all left to autograd. The limit is what its three products take at the
processor's peak.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from figures import Figure, compare, run

import torch  # isort: skip
from medloop_kernels import cpu
from medloop_model.network import NORM_EPSILON
from medloop_model.training.ternary_linear import ternary_linear
from torch import Tensor
from torch.nn import functional

# Each is tokens × inputs × outputs: the ward layers for 16 images, the published model's for four.
SHAPES = [(784, 96, 160), (784, 96, 192), (784, 192, 96), (1024, 512, 2048)]


def bench_layers(seed: int, rounds: int) -> Iterator[Figure]:
    """Values and all gradients of one layer; the goal is to be no slower."""
    torch.set_num_threads(1)
    variant = cpu.implementation(None)
    _, floating_peak = variant.peak()
    for tokens, inputs, outputs in SHAPES:
        draw = torch.Generator().manual_seed(seed)
        sizes = [(tokens, inputs), (outputs, inputs), (inputs,), (outputs,), (outputs,)]
        operands = [torch.randn(size, generator=draw, requires_grad=True) for size in sizes]
        upstream = torch.randn(tokens, outputs, generator=draw)
        products = 3 * tokens * inputs * outputs / 1e9
        yield from compare(
            f"layer {tokens}x{inputs}x{outputs} {variant.name}",
            "us",
            partial(there_and_back, ours, operands, upstream),
            {"torch's autograd": partial(there_and_back, in_torch, operands, upstream)},
            seed=seed,
            rounds=rounds,
            scale=1e6,
            goals={"torch's autograd": 1.0},
            limit=products / floating_peak if floating_peak else None,
        )


def there_and_back(layer: object, operands: list[Tensor], upstream: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of all operands."""
    return torch.autograd.grad(layer(*operands), operands, upstream)


def ours(x: Tensor, weight: Tensor, norm: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """The layer of `BitLinear`."""
    return ternary_linear(x, weight, norm_I=norm, gain_O=gain, bias_O=bias)


def in_torch(x: Tensor, weight: Tensor, norm: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """The same layer in torch's own operations (arXiv 2402.17764)."""
    normed = functional.rms_norm(x, norm.shape, norm, NORM_EPSILON)
    step = 127.0 / normed.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-5)
    rounded = normed + ((normed * step).round().clamp_(-128, 127) / step - normed).detach()
    scale = 1.0 / weight.abs().mean().clamp_(min=1e-5)
    ternary = weight + ((weight * scale).round().clamp_(-1, 1) / scale - weight).detach()
    return functional.linear(rounded, ternary) * gain + bias


if __name__ == "__main__":
    run(__doc__, 40, [bench_layers])
