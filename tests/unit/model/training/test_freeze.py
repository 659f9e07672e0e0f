from __future__ import annotations

import pytest
from medloop_model.architecture import Architecture
from medloop_model.network import BiTMedViT
from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD, SHALLOW_EWC, freeze

FOUR_BLOCKS = Architecture(8, 1, 4, 8, 4, 2, 2, ("a", "b"))


def test_shallow_moves_what_reads_the_input_and_no_code_of_a_deep_block() -> None:
    moving = set(freeze(BiTMedViT(FOUR_BLOCKS), SHALLOW_EWC))
    assert {"patch.weight", "position", "head.weight", "norm.bias", "blocks.0.qkv.weight"} <= moving
    assert "blocks.1.fc2.weight" in moving
    deep = {name for name in moving if name.startswith(("blocks.2", "blocks.3"))}
    assert deep
    assert all(name.endswith(".norm") for name in deep)


def test_distillation_moves_everything_and_expansion_only_the_head() -> None:
    network = BiTMedViT(FOUR_BLOCKS)
    assert set(freeze(network, DISTIL_ALL)) == dict(network.named_parameters()).keys()
    assert set(freeze(network, EXPAND_HEAD)) == {"head.weight", "head.bias"}


def test_what_does_not_move_asks_for_no_gradient() -> None:
    network = BiTMedViT(FOUR_BLOCKS)
    moving = freeze(network, SHALLOW_EWC)
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (name in moving)


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(ValueError, match="everything"):
        freeze(BiTMedViT(FOUR_BLOCKS), "everything")
