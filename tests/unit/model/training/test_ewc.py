from __future__ import annotations

import pytest
import torch
from medloop_model.architecture import Architecture
from medloop_model.network import BiTMedViT
from medloop_model.training.ewc import (
    MOST_FISHER,
    ewc_penalty,
    fisher_diagonal,
    merge_fisher,
    normalise_fisher,
)

TINY = Architecture(8, 1, 4, 8, 1, 2, 2, ("a", "b", "c"))


def test_penalty_is_the_weighted_square_of_the_way_gone() -> None:
    moved = torch.tensor([1.0, 2.0], requires_grad=True)
    anchor, fisher = {"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([3.0, 0.5])}
    penalty = ewc_penalty([("w", moved)], anchor, fisher)
    assert penalty.item() == pytest.approx(3 * 1 + 0.5 * 4)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert moved.grad is not None
    assert moved.grad.tolist() == pytest.approx([2 * 3 * 1, 2 * 0.5 * -2])


def test_no_parameter_costs_nothing() -> None:
    assert ewc_penalty([], {}, {}).item() == 0


def test_fisher_of_the_head_is_its_closed_form() -> None:
    # Of a softmax head, ∂(−log p_y)/∂W_n = (p_n − [n = y])·e with e the embedding, and the bias alike.
    network = BiTMedViT(TINY, seed=3)
    pixels = torch.rand(5, 8, 8, 1, generator=torch.Generator().manual_seed(0))
    found = fisher_diagonal(network, pixels, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    weight, bias = torch.zeros(3, 8), torch.zeros(3)
    with torch.no_grad():
        for image in pixels:
            embedding = network.embed(image[None])[0]
            probability = (network.head.weight @ embedding + network.head.bias).softmax(dim=0)
            label = torch.multinomial(probability, 1, generator=generator)
            error = probability - torch.nn.functional.one_hot(label, 3)[0]
            weight += torch.outer(error, embedding) ** 2 / 5
            bias += error**2 / 5
    torch.testing.assert_close(found["head.weight"], weight)
    torch.testing.assert_close(found["head.bias"], bias)
    assert found.keys() == dict(network.named_parameters()).keys()
    assert all((tensor >= 0).all() for tensor in found.values())


def test_normalised_fisher_has_mean_one_until_it_is_clamped() -> None:
    level = normalise_fisher({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[2.0], [2.0]])})
    assert level["a"].tolist() == [0.5, 1.5]
    peaked = torch.zeros(1000)
    peaked[0] = 1.0
    assert normalise_fisher({"a": peaked})["a"][0] == MOST_FISHER
    assert normalise_fisher({"a": torch.zeros(3)})["a"].tolist() == [0, 0, 0]


def test_merging_keeps_a_share_of_the_past_and_takes_new_rows_whole() -> None:
    merged = merge_fisher(
        {"w": torch.tensor([[1.0, 2.0]])}, {"w": torch.tensor([[3.0, 4.0], [5.0, 6.0]])}, 0.75
    )
    assert merged["w"].tolist() == [[1.5, 2.5], [5.0, 6.0]]
