from __future__ import annotations

import pytest
import torch
from medloop_model.architecture import Architecture
from medloop_model.errors import ShapeError
from medloop_model.network import BiTMedViT
from medloop_model.training.head import LEAD, expand_head, imprint

TINY = Architecture(8, 1, 4, 8, 1, 2, 2, ("a", "b"))


def pixels(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 8, 8, 1, generator=torch.Generator().manual_seed(seed))


def test_old_logits_stay_bit_for_bit_and_new_classes_stay_silent() -> None:
    network = BiTMedViT(TINY, seed=1)
    expanded = expand_head(network, ("a", "b", "c", "d"))
    with torch.no_grad():
        before, after = network(pixels(16)), expanded(pixels(16))
    assert torch.equal(after[:, :2], before)
    assert torch.equal(after.argmax(dim=1), before.argmax(dim=1))
    assert expanded.architecture.classes == ("a", "b", "c", "d")
    assert network.head.out_features == 2


@pytest.mark.parametrize("classes", [("b", "a", "c"), ("a", "c"), ("a",)])
def test_the_old_classes_must_come_first(classes: tuple[str, ...]) -> None:
    with pytest.raises(ShapeError, match="start with"):
        expand_head(BiTMedViT(TINY), classes)


@pytest.mark.parametrize("others", [0, 6])
def test_an_imprinted_class_leads_at_its_own_mean_and_moves_no_other_row(others: int) -> None:
    network = expand_head(BiTMedViT(TINY, seed=1), ("a", "b", "c"))
    rows = network.head.weight[:2].clone()
    with torch.no_grad():
        mine, rest = network.embed(pixels(5, seed=1)), network.embed(pixels(others, seed=2))
        imprint(network, 2, mine, rest)
        logits = network.head(mine.mean(dim=0))
    assert (logits[2] - logits[:2].max()).item() == pytest.approx(LEAD, abs=1e-4)
    assert torch.equal(network.head.weight[:2], rows)
    assert network.head.weight[2].norm().item() == pytest.approx(rows.norm(dim=1).mean().item(), rel=1e-4)
