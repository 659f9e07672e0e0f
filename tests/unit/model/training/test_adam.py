from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from medloop_model.training.adam import EPSILON, FIRST_DECAY, SECOND_DECAY, AdamW


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_those_of_the_paper(weight_decay: float) -> None:
    draw = np.random.default_rng(0)
    expected = draw.normal(size=(3, 2))
    parameter = torch.tensor(expected, requires_grad=True)
    optimiser = AdamW([parameter], weight_decay, longest=math.inf)
    first, second = np.zeros((3, 2)), np.zeros((3, 2))
    for step in range(1, 8):
        gradient, rate = draw.normal(size=(3, 2)), 0.01 * step
        first = FIRST_DECAY * first + (1 - FIRST_DECAY) * gradient
        second = SECOND_DECAY * second + (1 - SECOND_DECAY) * gradient**2
        mean, spread = first / (1 - FIRST_DECAY**step), second / (1 - SECOND_DECAY**step)
        expected = expected - rate * (mean / (np.sqrt(spread) + EPSILON) + weight_decay * expected)
        parameter.grad = torch.tensor(gradient)
        optimiser.step(rate)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)


def test_only_matrices_decay() -> None:
    vector, matrix = torch.ones(3, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    optimiser = AdamW([vector, matrix], weight_decay=0.5)
    vector.grad = torch.zeros(3)
    optimiser.step(1.0)
    assert torch.equal(vector, torch.ones(3))
    assert torch.equal(matrix, torch.full((2, 2), 0.5))
    optimiser.zero_gradients()
    assert vector.grad is None


def test_what_never_has_a_gradient_stays() -> None:
    moved, untouched = torch.ones(3, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    optimiser = AdamW([moved, untouched])
    for _ in range(3):
        moved.grad = torch.ones(3)
        optimiser.step(0.1)
    assert (moved < 1).all()
    assert torch.equal(untouched, torch.ones(2, 2))


def test_long_gradients_are_shortened_together() -> None:
    """As torch's own clipping does it, but for the 1e-6 that it adds to a length."""
    steps = []
    for clips in (True, False):
        one, other = torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)
        optimiser = AdamW([one, other], longest=0.5 if clips else math.inf)
        for scale in (1.0, 0.01):  # the second is short enough as it is
            one.grad, other.grad = scale * torch.tensor([1.0, -2.0]), scale * torch.tensor([3.0, 0.0, 1.0])
            if not clips:
                torch.nn.utils.clip_grad_norm_([one, other], 0.5)
            assert optimiser.step(0.1)
        steps.append(torch.cat([one, other]).detach())
    torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nothing_moves_along_a_gradient_that_is_not_finite(bad: float) -> None:
    one, other = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    optimiser = AdamW([one, other])
    one.grad, other.grad = torch.tensor([1.0, bad, 0.0]), torch.ones(2)
    assert not optimiser.step(0.1)
    assert torch.equal(torch.cat([one, other]), torch.ones(5))
    assert (optimiser.steps, float(optimiser.first.abs().sum())) == (0, 0.0)


def test_parameters_are_moved_where_they_are_used() -> None:
    layer = torch.nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    optimiser = AdamW(layer.parameters())
    assert torch.equal(layer.weight, before)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step(0.1)
    assert not torch.equal(layer.weight, before)
    assert torch.equal(optimiser.weights, torch.cat([layer.weight.flatten(), layer.bias]).detach())


def test_no_compiler_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it is an error from here on
    weight = torch.ones(2, requires_grad=True)
    optimiser = AdamW([weight])
    optimiser.zero_gradients()
    (weight**2).sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step(0.1)
    torch.testing.assert_close(weight.detach(), torch.full((2,), 0.9))
