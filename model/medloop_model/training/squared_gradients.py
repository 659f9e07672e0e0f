"""Each image's own gradient, squared and summed over a batch: what the Fisher diagonal is made of.

The square of a batch's gradient is not the sum of its images' squared gradients, and one backward pass an
image is some fifty small operations a layer. Here a whole batch goes through the network once; what arrives
at a layer's output, with what went into the layer, gives every image's own gradient in one matrix product.

Shape suffixes: B batch · H, W image rows, columns · C channels · T tokens · P patch pixels · D width ·
I, O inputs, outputs of a linear layer · N classes
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medloop_model.network import NORM_EPSILON, BitLinear, BiTMedViT
from medloop_model.training.quantizers import absmean_ternary
from medloop_model.training.ternary_linear import fake_quantized, ternarized

Squares = dict[str, Tensor]


class ForwardPass:
    """A batch's way through the network, from which squared gradients can be asked for once.

    Args:
        network: left as it is; what is frozen in it is measured too.
        pixels_BHWC: the batch.

    Attributes:
        logits_BN: the network's answers.
    """

    def __init__(self, network: BiTMedViT, pixels_BHWC: Tensor) -> None:
        self._network = network
        self._linears: dict[str, _Linear] = {}
        self._outputs: list[Tensor] = []
        hooks = [network.blocks[0].register_forward_pre_hook(self._embedded)]
        for name, layer in network.named_modules():
            if isinstance(layer, BitLinear):
                hooks.append(layer.register_forward_hook(self._passed(name)))
        hooks.append(network.blocks[-1].register_forward_hook(self._finished))
        try:
            # Through the pixels every output needs a gradient, frozen layers or not.
            self.logits_BN = network(pixels_BHWC.detach().requires_grad_())
        finally:
            for hook in hooks:
                hook.remove()
        with torch.no_grad():
            self._patches_BTP = network._patches(pixels_BHWC)

    def squares(self, direction_BN: Tensor) -> Squares:
        """Σ_B (∂ (direction_B · logits_B) / ∂θ)², of every parameter θ by name.

        Args:
            direction_BN: each image's gradient at its logits.
        """
        gradients = torch.autograd.grad(self.logits_BN, self._outputs, direction_BN)
        with torch.no_grad():
            squares = self._entry(gradients[0]) | self._exit(direction_BN)
            for (name, linear), gradient_BTO in zip(self._linears.items(), gradients[1:], strict=True):
                squares |= {f"{name}.{part}": value for part, value in linear.squares(gradient_BTO).items()}
        return {name: squares[name] for name, _ in self._network.named_parameters()}

    def _embedded(self, _block: Any, inputs: tuple[Tensor, ...]) -> None:
        self._outputs.append(inputs[0])

    def _passed(self, name: str) -> Any:
        def hook(layer: BitLinear, inputs: tuple[Tensor, ...], output_BTO: Tensor) -> None:
            self._linears[name] = _Linear(layer, inputs[0])
            self._outputs.append(output_BTO)

        return hook

    def _finished(self, _block: Any, _inputs: tuple[Tensor, ...], tokens_BTD: Tensor) -> None:
        self._tokens_BTD = tokens_BTD.detach()

    def _entry(self, gradient_BTD: Tensor) -> Squares:
        """Patch embedding and positions, from the gradient at the first block's input."""
        return {
            "patch.weight": _sum_of_squares(gradient_BTD.mT @ self._patches_BTP),
            "patch.bias": _sum_of_squares(gradient_BTD.sum(dim=1)),
            "position": _sum_of_squares(gradient_BTD),
        }

    def _exit(self, gradient_BN: Tensor) -> Squares:
        """Last norm and head, from the gradient at the logits."""
        network, architecture = self._network, self._network.architecture
        norm_D, head_ND = network.norm.weight.data, network.head.weight.data
        if architecture.quantized and architecture.ternary_norms:
            norm_D = absmean_ternary(norm_D)
        if architecture.quantized and architecture.ternary_head:
            head_ND = absmean_ternary(head_ND, a_row=True)
        unit_BD = functional.layer_norm(self._tokens_BTD.mean(dim=1), norm_D.shape, eps=network.norm.eps)
        embedding_BD = unit_BD * norm_D + network.norm.bias
        gradient_BD = gradient_BN @ head_ND
        return {
            "norm.weight": _sum_of_squares(gradient_BD * unit_BD),
            "norm.bias": _sum_of_squares(gradient_BD),
            "head.weight": (gradient_BN**2).T @ embedding_BD**2,
            "head.bias": _sum_of_squares(gradient_BN),
        }


class _Linear:
    """What went into a `BitLinear`, as far as its gradients need it.

    Args:
        layer: the layer.
        x_BTI: its input.
    """

    @torch.no_grad()
    def __init__(self, layer: BitLinear, x_BTI: Tensor) -> None:
        norm_I = absmean_ternary(layer.norm) if layer.ternary_norm else layer.norm
        self.unit_BTI = x_BTI * (x_BTI.square().mean(dim=-1, keepdim=True) + NORM_EPSILON).rsqrt()
        self.gain_O = layer.gain
        if layer.quantized:
            self.input_BTI = fake_quantized(x_BTI, norm_I)[0]
            self.weight_OI = ternarized(layer.weight, layer.gain)[0]
        else:
            self.input_BTI, self.weight_OI = self.unit_BTI * norm_I, layer.weight.data

    def squares(self, gradient_BTO: Tensor) -> Squares:
        """With y = x·(W·gain)ᵀ + bias; rounding passes gradients on unchanged (straight through)."""
        outer_BOI = gradient_BTO.mT @ self.input_BTI  # of W·gain, of each image
        along_BO = torch.einsum("boi,oi->bo", outer_BOI, self.weight_OI)
        gradient_BTI = gradient_BTO @ (self.weight_OI * self.gain_O[:, None])
        return {
            "norm": _sum_of_squares((gradient_BTI * self.unit_BTI).sum(dim=1)),
            "weight": _sum_of_squares(outer_BOI) * self.gain_O[:, None] ** 2,
            "gain": _sum_of_squares(along_BO),
            "bias": _sum_of_squares(gradient_BTO.sum(dim=1)),
        }


def _sum_of_squares(gradients_B: Tensor) -> Tensor:
    """Over the batch, the first axis."""
    return (gradients_B**2).sum(dim=0)  # vector_norm over the first axis takes thirty times as long
