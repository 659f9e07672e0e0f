from __future__ import annotations

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
    optimiser = AdamW([parameter], weight_decay)
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


def test_vectors_never_decay_and_what_has_no_gradient_stays() -> None:
    vector, untouched = torch.ones(3, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    optimiser = AdamW([vector, untouched], weight_decay=0.5)
    vector.grad = torch.zeros(3)
    optimiser.step(1.0)
    assert torch.equal(vector, torch.ones(3))
    assert torch.equal(untouched, torch.ones(2, 2))
    optimiser.zero_gradients()
    assert vector.grad is None


def test_no_compiler_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it is an error from here on
    weight = torch.ones(2, requires_grad=True)
    optimiser = AdamW([weight])
    optimiser.zero_gradients()
    (weight**2).sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step(0.1)
    torch.testing.assert_close(weight.detach(), torch.full((2,), 0.9))
