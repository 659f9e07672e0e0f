from __future__ import annotations

import numpy as np
import pytest
import torch
from medloop_model.architecture import Architecture, paper, ward
from medloop_model.engine import Engine
from medloop_model.network import BiTMedViT
from medloop_model.training.export import export_package, network_from
from medloop_model.training.pretraining import predict

TWO = ("normal", "pneumonia")

# Float32 sums run in another order in the two implementations, and a value that lies within that rounding
# error of two int8 codes may take the other one; each such step moves a logit by less than this.
LOGIT_TOLERANCE = 0.05


def shaken(architecture: Architecture, seed: int) -> BiTMedViT:
    """A network whose gains, norms and biases are no longer the neutral ones it was born with."""
    network = BiTMedViT(architecture, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def test_ward_has_some_260_000_parameters() -> None:
    count = sum(parameter.numel() for parameter in BiTMedViT(ward(28, 1, TWO)).parameters())
    assert 250_000 < count < 270_000


def test_paper_has_the_published_number_of_parameters() -> None:
    # Published: 8.65 M (arXiv 2510.13760); theirs counts a training-only projection that ours doesn't have.
    count = sum(parameter.numel() for parameter in BiTMedViT(paper(3, TWO)).parameters())
    assert 7_500_000 < count < 8_800_000


def test_one_seed_gives_one_network() -> None:
    first, second, other = (BiTMedViT(ward(28, 1, TWO), seed) for seed in (1, 1, 2))
    assert torch.equal(first.blocks[0].qkv.weight, second.blocks[0].qkv.weight)
    assert not torch.equal(first.blocks[0].qkv.weight, other.blocks[0].qkv.weight)


def test_full_precision_quantises_nothing() -> None:
    network = shaken(ward(28, 1, TWO).full_precision(), 0)
    layer = network.blocks[0].fc1
    x = torch.randn(1, 3, 96, generator=torch.Generator().manual_seed(0))
    normed = x / (x.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt() * layer.norm
    expected = (normed @ layer.weight.T) * layer.gain + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "architecture",
    [
        ward(28, 1, TWO),
        ward(64, 3, ("a", "b", "c")),
        Architecture(32, 3, 8, 48, 2, 4, 3, TWO, ternary_attention=False),
    ],
    ids=["ward", "colour", "full-precision attention"],
)
def test_the_engine_computes_what_the_network_computes(architecture: Architecture) -> None:
    package = export_package(shaken(architecture, seed=5), {})
    side, channels = architecture.image_size, architecture.channels
    images = np.random.default_rng(0).integers(0, 256, (32, side, side, channels), dtype=np.uint8)
    expected, found = predict(network_from(package), images), Engine(package)(images)
    np.testing.assert_allclose(found.logits, expected, atol=LOGIT_TOLERANCE)
