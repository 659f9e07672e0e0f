from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_kernels import reference
from medloop_model.training.quantizers import absmean_ternary
from medloop_model.training.ternary_linear import ternary_linear
from torch import Tensor
from torch.nn import functional

NAMES = ("x", "norm", "weight", "gain", "bias")


def drawn(seed: int, rows: int, inputs: int, outputs: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "x": (2, rows, inputs),
        "norm": (inputs,),
        "weight": (outputs, inputs),
        "gain": (outputs,),
        "bias": (outputs,),
    }
    return {name: torch.randn(size, generator=generator) for name, size in sizes.items()}


def as_one(x: Tensor, norm: Tensor, weight: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return ternary_linear(x, weight, norm_I=norm, gain_O=gain, bias_O=bias)


def in_parts(x: Tensor, norm: Tensor, weight: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """torch's own norm and linear in double precision, numpy's rounding out of autograd's sight."""
    rounded, _ = reference.fake_quantize(x.detach().flatten(0, 1).numpy(), norm.detach().numpy())
    x, norm, weight, gain, bias = (tensor.double() for tensor in (x, norm, weight, gain, bias))
    normed = functional.rms_norm(x, norm.shape, norm, reference.RMS_EPSILON)
    straight = normed + (torch.from_numpy(rounded).view(x.shape) - normed).detach()
    return functional.linear(straight, absmean_ternary(weight)) * gain + bias


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31 - 1), st.integers(1, 5), st.integers(1, 24), st.integers(1, 12))
def test_values_and_gradients_are_those_of_its_parts(seed: int, rows: int, inputs: int, outputs: int) -> None:
    upstream = drawn(seed + 1, rows, outputs, outputs)["x"]
    results = []
    for layer in (as_one, in_parts):
        tensors = [tensor.requires_grad_() for tensor in drawn(seed, rows, inputs, outputs).values()]
        y = layer(*tensors)
        results.append((y, *torch.autograd.grad((y * upstream).sum(), tensors)))
    # Where a token is nearly 0, its norm's gradient is a small difference of numbers as large as 1 / RMS.
    steepest = float(1 / drawn(seed, rows, inputs, outputs)["x"].square().mean(dim=-1).sqrt().min())
    for found, expected in zip(*results, strict=True):
        largest = max(1.0, steepest, float(expected.detach().abs().max()))
        torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=2e-5 * largest)


def test_gradients_that_come_in_another_memory_order_are_taken_too() -> None:
    upstream = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(1)).permute(2, 1, 0)
    assert not upstream.is_contiguous()
    results = []
    for gradient in (upstream, upstream.contiguous()):
        tensors = [tensor.requires_grad_() for tensor in drawn(2, 3, 8, 6).values()]
        results.append(torch.autograd.grad(as_one(*tensors), tensors, gradient))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("moving", [("norm",), ("x",), ("x", "weight"), ("gain",), ("bias", "norm")])
def test_what_is_frozen_has_no_gradient_and_changes_none(moving: tuple[str, ...]) -> None:
    def gradients(names: tuple[str, ...]) -> dict[str, Tensor | None]:
        tensors = drawn(3, 4, 10, 6)
        for name in names:
            tensors[name].requires_grad_()
        as_one(*tensors.values()).square().sum().backward()  # type: ignore[no-untyped-call]
        return {name: tensor.grad for name, tensor in tensors.items()}

    whole, part = gradients(NAMES), gradients(moving)
    for name in NAMES:
        if name in moving:
            torch.testing.assert_close(part[name], whole[name], rtol=0, atol=0)
        else:
            assert part[name] is None


def test_its_inputs_stay_as_they_were() -> None:
    tensors = drawn(5, 3, 8, 4)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    for tensor in tensors.values():
        tensor.requires_grad_()
    as_one(*tensors.values()).sum().backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())
