from __future__ import annotations

import pytest
import torch
from medloop_model.errors import ShapeError
from medloop_model.training.discriminant import discriminant


def clouds(count: int, offset: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes as stretched clouds in the plane, moved along the first axis."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.tensor([[0.0, 0.0], [0.0, 2.0], [0.0, 4.0]])
    noise = torch.randn(count, 2, generator=draw) * torch.tensor([5.0, 0.3])
    return centres[labels] + noise + torch.tensor([offset, 0.0]), labels


def test_it_is_the_discriminant_of_one_domain() -> None:
    embedding, labels = clouds(90, 0.0, 0)
    weight, bias = discriminant([(embedding, labels)], 3, shrinkage=0.0)
    means = torch.stack([embedding[labels == label].mean(dim=0) for label in range(3)])
    rest = embedding - means[labels]
    inverse = torch.linalg.inv(rest.T @ rest / len(rest))
    torch.testing.assert_close(weight, means @ inverse, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(bias, -0.5 * ((means @ inverse) * means).sum(dim=1), rtol=1e-3, atol=1e-4)


def test_a_small_domain_weighs_as_much_as_a_large_one() -> None:
    large, small = clouds(900, 0.0, 1), clouds(9, 0.0, 2)
    copied = (small[0].repeat(100, 1), small[1].repeat(100))
    for one, other in zip(
        discriminant([large, small], 3, 0.2), discriminant([large, copied], 3, 0.2), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_it_separates_what_two_domains_share() -> None:
    old, new = clouds(300, -3.0, 3), clouds(30, 3.0, 4)
    weight, bias = discriminant([old, new], 3, shrinkage=0.1)
    for domain in (clouds(300, -3.0, 5), clouds(300, 3.0, 6)):
        answers = (domain[0] @ weight.T + bias).argmax(dim=1)
        assert (answers == domain[1]).float().mean() > 0.97


def test_full_shrinkage_takes_the_nearest_mean() -> None:
    embedding, labels = clouds(90, 0.0, 7)
    weight, bias = discriminant([(embedding, labels)], 3, shrinkage=1.0)
    means = torch.stack([embedding[labels == label].mean(dim=0) for label in range(3)])
    nearest = torch.cdist(embedding, means).argmin(dim=1)
    assert torch.equal((embedding @ weight.T + bias).argmax(dim=1), nearest)


def test_a_class_without_an_example_is_refused() -> None:
    embedding, labels = clouds(9, 0.0, 0)
    with pytest.raises(ShapeError, match="every class"):
        discriminant([(embedding, labels)], 4, shrinkage=0.3)
