"""Between the trained network and the package: pack it for the engine, and build it again from a package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from medloop_kernels.layout import pack

from medloop_model.checkpoint import ModelPackage, Tensors
from medloop_model.errors import UnsupportedArchitecture
from medloop_model.network import BitLinear, BiTMedViT
from medloop_model.training.quantizers import ternary_codes

_LINEARS = ("qkv", "out", "fc1", "fc2")


def network_from(package: ModelPackage) -> BiTMedViT:
    """The network with the package's latent weights, in float32.

    Raises:
        UnsupportedArchitecture: the latent weights aren't those of the architecture.
    """
    network = BiTMedViT(package.architecture)
    state = {name: torch.from_numpy(tensor.astype(np.float32)) for name, tensor in package.latent.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UnsupportedArchitecture(f"the latent weights don't fit the architecture: {error}") from error
    return network.eval()


def export_package(
    network: BiTMedViT,
    provenance: Mapping[str, Any],
    fisher: Tensors | None = None,
    reference: Tensors | None = None,
) -> ModelPackage:
    """A ternary network as a package.

    The latent weights are rounded to fp16 first and packed after that, so that a network built from the
    package computes what the engine computes: rounding later could flip a ternary code.

    Args:
        network: a quantised network; left as it is.
        provenance: where the model comes from.
        fisher: diagonal Fisher information by latent name.
        reference: the monitoring reference.
    """
    latent = {
        name: tensor.detach().numpy().astype(np.float16) for name, tensor in network.state_dict().items()
    }
    rounded = network_from(ModelPackage(network.architecture, latent=latent))
    return ModelPackage(
        architecture=network.architecture,
        packed=pack_network(rounded),
        latent=latent,
        fisher=fisher or {},
        reference=reference or {},
        provenance=provenance,
    )


def export_teacher(network: BiTMedViT, provenance: Mapping[str, Any]) -> ModelPackage:
    """A full-precision network as a teacher: latent weights alone, in float32."""
    latent = {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}
    return ModelPackage(network.architecture, latent=latent, provenance=provenance)


@torch.no_grad()
def pack_network(network: BiTMedViT) -> Tensors:
    """The tensors that the engine runs, by the names that `engine.py` defines."""
    architecture = network.architecture
    packed = {
        **_pack_matrix("patch.weight", network.patch.weight, architecture.ternary_patch),
        "patch.bias": _array(network.patch.bias),
        **_pack_matrix("position", network.position, architecture.ternary_position),
        **_pack_vector("norm.weight", network.norm.weight, architecture.ternary_norms),
        "norm.bias": _array(network.norm.bias),
        **_pack_matrix("head.weight", network.head.weight, architecture.ternary_head),
        "head.bias": _array(network.head.bias),
    }
    for index, block in enumerate(network.blocks):
        for linear in _LINEARS:
            layer = getattr(block, linear)
            prefix = f"blocks.{index}.{linear}"
            packed |= {f"{prefix}.{name}": tensor for name, tensor in _pack_linear(layer).items()}
    return packed


def _pack_matrix(name: str, weight_OI: torch.Tensor, ternary: bool) -> Tensors:
    if not ternary:
        return {name: _array(weight_OI)}
    codes, scale = ternary_codes(weight_OI, a_row=True)
    packed = pack(codes.numpy().astype(np.int8))
    prefix = name.removesuffix(".weight")
    return {f"{prefix}.codes": packed, f"{prefix}.scale": _array(scale[:, 0])}


def _pack_vector(name: str, weight_I: torch.Tensor, ternary: bool) -> Tensors:
    return _pack_matrix(name, weight_I[None], ternary) if ternary else {name: _array(weight_I)}


def _pack_linear(layer: BitLinear) -> Tensors:
    tensors = {**_pack_vector("norm", layer.norm, layer.ternary_norm), "bias": _array(layer.bias)}
    if not layer.quantized:
        return tensors | {"weight": _array(layer.weight * layer.gain[:, None])}
    codes, scale = ternary_codes(layer.weight)
    return tensors | {"codes": pack(codes.numpy().astype(np.int8)), "scale": _array(scale * layer.gain)}


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().numpy().astype(np.float32)
