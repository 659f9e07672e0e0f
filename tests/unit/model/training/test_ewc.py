from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from medloop_model.architecture import Architecture
from medloop_model.errors import ShapeError, UnfitFisher
from medloop_model.network import BiTMedViT
from medloop_model.training.ewc import (
    BATCH,
    MOST_FISHER,
    ewc_penalty,
    fisher_diagonal,
    merge_fisher,
    normalise_fisher,
)

TINY = Architecture(8, 1, 4, 8, 1, 2, 2, ("a", "b", "c"))
TWO = TINY.with_classes(("a", "b"))


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


def exact_by_one_pass_an_answer(network: BiTMedViT, pixels_BHWC: torch.Tensor) -> dict[str, torch.Tensor]:
    """Σ_y p(y)·(∂ log p(y) / ∂θ)², as it is defined: a backward pass for every answer to every image."""
    parameters = dict(network.named_parameters())
    fisher = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for pixels_1HWC in torch.split(pixels_BHWC, 1):
        log_p_N = network(pixels_1HWC).log_softmax(dim=1)[0]
        for log_p in log_p_N:
            gradients = torch.autograd.grad(log_p, list(parameters.values()), retain_graph=True)
            for name, gradient in zip(fisher, gradients, strict=True):
                fisher[name] += log_p.exp().detach() * gradient**2 / len(pixels_BHWC)
    return fisher


def shaken(architecture: Architecture, seed: int) -> BiTMedViT:
    """A network none of whose parameters is 0 or 1 any more."""
    network = BiTMedViT(architecture, seed).to(precision(architecture))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise, alpha=0.3)
    return network


def precision(architecture: Architecture) -> torch.dtype:
    """float64 where it can be had: the ternary layers run on kernels that have float32 only."""
    return torch.float32 if architecture.quantized else torch.float64


def close(found: torch.Tensor, expected: torch.Tensor, name: str, digits: float = 1e-9) -> None:
    """Equal to as many digits as the precision has, beside the largest value."""
    allowed = digits if expected.dtype == torch.float64 else max(digits, 2e-5)
    largest = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=allowed, atol=allowed * largest, msg=name)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(count: int, architecture: Architecture, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    size, channels = architecture.image_size, architecture.channels
    pixels = torch.rand(count, size, size, channels, generator=generator, dtype=torch.float64)
    return pixels.to(precision(architecture))


@pytest.mark.parametrize(
    "architecture",
    [
        TWO,
        TWO.full_precision(),
        TWO.all_ternary(),
        replace(TWO, ternary_attention=False, channels=3),
    ],
    ids=["ternary", "full precision", "all ternary", "only the MLPs, colour"],
)
def test_batches_give_what_one_image_and_answer_at_a_time_gives(architecture: Architecture) -> None:
    network, pixels = shaken(architecture, 3), drawn(BATCH + 3, architecture)
    expected = exact_by_one_pass_an_answer(network, pixels)
    found = fisher_diagonal(network, pixels, seeded())
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.abs().max() > 0, name
        close(found[name], tensor, name)


def test_signs_of_more_classes_average_to_the_expectation() -> None:
    # Three classes leave two directions, so that one image has two outcomes: their signs agree, or differ.
    network, image = shaken(TINY, 3), drawn(1, TINY)
    outcomes = [fisher_diagonal(network, image, seeded(seed)) for seed in range(8)]
    first = outcomes[0]
    other = next(each for each in outcomes if not torch.allclose(each["head.bias"], first["head.bias"]))
    for name, expected in exact_by_one_pass_an_answer(network, image).items():
        close((first[name] + other[name]) / 2, expected, name)


def test_a_batch_is_the_mean_of_its_images() -> None:
    network, pixels = shaken(TINY, 3), drawn(BATCH + 3, TINY)
    generator = seeded(1)
    alone = [fisher_diagonal(network, image[None], generator) for image in pixels]
    for name, together in fisher_diagonal(network, pixels, seeded(1)).items():
        mean = torch.stack([each[name] for each in alone]).mean(dim=0)
        close(together, mean, name)


def test_frozen_parts_are_measured_and_the_network_is_left_as_it_is() -> None:
    network, pixels = shaken(TINY, 4), drawn(3, TINY)
    free = fisher_diagonal(network, pixels, seeded())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.requires_grad_(False)
    network.head.requires_grad_(True)
    frozen = fisher_diagonal(network, pixels, seeded())
    for name, tensor in free.items():
        torch.testing.assert_close(frozen[name], tensor)
    assert [name for name, p in network.named_parameters() if p.requires_grad] == [
        "head.weight",
        "head.bias",
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_fisher_of_a_softmax_regression_is_its_closed_form() -> None:
    # Of two classes, Fisher information of the head's weights is E[p₀·p₁·e²], with e what the head reads.
    network, pixels = shaken(TWO, 5), drawn(7, TWO)
    with torch.no_grad():
        embedding_BD = network.embed(pixels)
        p_BN = network(pixels).softmax(dim=1)
    weight = ((p_BN[:, 0] * p_BN[:, 1])[:, None] * embedding_BD**2).mean(dim=0)
    found = fisher_diagonal(network, pixels, seeded())
    torch.testing.assert_close(found["head.weight"], weight.expand(2, -1))
    torch.testing.assert_close(found["head.bias"], (p_BN[:, 0] * p_BN[:, 1]).mean().expand(2))


def test_fisher_is_the_curvature_of_the_answers() -> None:
    # KL(p_θ ‖ p_θ+h) = ½·F·h² + O(h³): by central differences, without any gradient. In full precision,
    # since a rounded weight answers by steps.
    architecture = TWO.full_precision()
    network, pixels = shaken(architecture, 6), drawn(4, architecture)
    found, h = fisher_diagonal(network, pixels, seeded()), 1e-3
    with torch.no_grad():
        log_p_BN = network(pixels).log_softmax(dim=1)
        for name, parameter in network.named_parameters():
            values, at = parameter.view(-1), parameter.numel() // 2
            divergence = torch.tensor(0.0, dtype=torch.float64)
            for step in (h, -h):
                values[at] += step
                moved_BN = network(pixels).log_softmax(dim=1)
                values[at] -= step
                divergence += (log_p_BN.exp() * (log_p_BN - moved_BN)).sum(dim=1).mean() / 2
            assert 2 * divergence.item() / h**2 == pytest.approx(
                found[name].view(-1)[at].item(), rel=1e-3, abs=1e-7
            ), name


def test_progress_is_told_after_every_batch() -> None:
    told: list[tuple[int, int]] = []
    fisher_diagonal(BiTMedViT(TINY), drawn(BATCH + 1, TINY), seeded(), lambda *done: told.append(done))
    assert told == [(BATCH, BATCH + 1), (BATCH + 1, BATCH + 1)]


def test_no_image_and_no_number_are_refused() -> None:
    network = BiTMedViT(TINY)
    with pytest.raises(ShapeError, match="at least one image"):
        fisher_diagonal(network, torch.zeros(0, 8, 8, 1), seeded())
    with torch.no_grad():
        network.head.bias[0] = float("nan")
    with pytest.raises(UnfitFisher, match="aren't finite"):
        fisher_diagonal(network, torch.zeros(1, 8, 8, 1), seeded())


def test_a_sure_model_still_has_information() -> None:
    network, pixels = shaken(TWO, 3), drawn(4, TWO)
    with torch.no_grad():
        network.head.bias[0] += 16.0  # the other comes to 1e-7: it would never be drawn
    found = fisher_diagonal(network, pixels, seeded())
    for name, expected in exact_by_one_pass_an_answer(network, pixels).items():
        assert expected.max() > 0, name
        close(found[name], expected, name, digits=1e-6)


@pytest.mark.parametrize("images", [3, 12])
@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("classes", [2, 7])
def test_the_pull_on_a_weight_depends_on_no_measure_of_the_model(
    images: int, depth: int, classes: int
) -> None:
    # What one default λ rests on: λ's mean pull on weights that have moved by 1 is 2λ, whatever the model,
    # but for what the clamp takes from a few peaks.
    architecture = replace(TINY, depth=depth, classes=tuple("abcdefg"[:classes]))
    network, pixels = shaken(architecture, 7), drawn(images, architecture)
    fisher = normalise_fisher(fisher_diagonal(network, pixels, seeded()))
    anchor = {name: tensor.detach() - 1 for name, tensor in network.named_parameters()}
    ewc_penalty(network.named_parameters(), anchor, fisher).backward()  # type: ignore[no-untyped-call]
    pulls = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    assert len(pulls) == sum(parameter.numel() for parameter in network.parameters())
    peaks = sum(int((tensor >= MOST_FISHER).sum()) for tensor in fisher.values())
    assert peaks <= 3
    assert 1.4 <= pulls.mean().item() <= 2.0 + 1e-9


def test_a_sum_over_images_is_normalised_to_what_their_mean_is() -> None:
    fisher = fisher_diagonal(shaken(TINY, 8), drawn(6, TINY), seeded())
    level = normalise_fisher(fisher)
    for name, tensor in normalise_fisher({name: 6 * tensor for name, tensor in fisher.items()}).items():
        torch.testing.assert_close(tensor, level[name])


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
