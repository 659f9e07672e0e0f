"""Weights that don't fit their measures are refused in words, before a GPU sees them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from medloop_kernels import ShapeError, unpack
from medloop_kernels.network import require_weights
from random_network import MEASURES, random_network

WEIGHTS = random_network(MEASURES)
FULL = random_network(MEASURES, full_attention=True)


def floats(*shape):
    return np.zeros(shape, dtype=np.float32)


def with_layer(name, **change):
    block = WEIGHTS.blocks[1]
    changed = replace(block, **{name: replace(getattr(block, name), **change)})
    return replace(WEIGHTS, blocks=(WEIGHTS.blocks[0], changed))


@pytest.mark.parametrize(
    "weights", [WEIGHTS, FULL, replace(WEIGHTS, blocks=())], ids=["ternary", "full", "no block"]
)
def test_weights_that_fit_are_taken(weights):
    require_weights(weights)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (replace(WEIGHTS, measures=replace(MEASURES, classes=0)), "at least 1"),
        (replace(WEIGHTS, measures=replace(MEASURES, patch_size=5)), "patches must divide the image"),
        (replace(WEIGHTS, measures=replace(MEASURES, heads=5)), "heads the width"),
        (replace(WEIGHTS, measures=replace(MEASURES, key_heads=3)), "key heads the heads"),
        (replace(WEIGHTS, measures=replace(MEASURES, hidden=41)), "block 0's fc1 has 40 outputs .* not 41"),
        (replace(WEIGHTS, position=floats(15, 24)), r"position must be float32 \(16, 24\), not .*\(15, 24\)"),
        (replace(WEIGHTS, position=np.zeros((16, 24))), "position must be float32 .* not float64"),
        (replace(WEIGHTS, norm_weight=floats(23)), "norm_weight must be"),
        (replace(WEIGHTS, norm_bias=floats(25)), "norm_bias must be"),
        (replace(WEIGHTS, patch=replace(WEIGHTS.patch, inputs=8)), "patch has 24 outputs and 8 inputs"),
        (
            replace(WEIGHTS, head=replace(WEIGHTS.head, weights=floats(3, 23))),
            r"head must be float32 \(3, 24\)",
        ),
        (replace(WEIGHTS, head=replace(WEIGHTS.blocks[0].fc2, inputs=24)), "head has 24 outputs"),
        (with_layer("qkv", norm=None), "block 1's qkv needs a norm"),
        (with_layer("qkv", norm=floats(23)), "block 1's qkv's norm must be"),
        (with_layer("out", bias=floats(23)), "block 1's out's bias must be"),
        (with_layer("fc1", scale=None), "block 1's fc1 needs a scale"),
        (with_layer("fc1", scale=floats(39)), "block 1's fc1's scale must be"),
        (with_layer("fc2", weights=floats(24, 40), scale=None), "fc2 must be quantized"),
    ],
)
def test_what_does_not_fit_is_named(weights, sentence):
    with pytest.raises(ShapeError, match=sentence):
        require_weights(weights)


def test_a_head_of_ternary_weights_is_refused():
    codes = unpack(WEIGHTS.blocks[0].out.weights, 24)[:3]
    head = replace(WEIGHTS.head, weights=codes, scale=floats(3))
    with pytest.raises(ShapeError, match="head must be in full precision, not int8"):
        require_weights(replace(WEIGHTS, head=head))
