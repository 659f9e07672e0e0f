"""What the ternary linear's plugin is made of, and how TensorRT stores it in an engine: as named fields.

An engine file is read by the plugin of its `PLUGIN_VERSION`; whoever changes a field raises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.errors import LayoutError, ShapeError
from medloop_kernels.layout import require_width
from medloop_kernels.network import LinearWeights

PLUGIN_NAME = "MedloopTernaryLinear"
PLUGIN_VERSION = "1"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Field:
    """One field.

    Args:
        name: its own in the plugin.
        type: a member of tensorrt.PluginFieldType.
        data: one axis, little-endian.
    """

    name: str
    type: Literal["FLOAT32", "INT32", "INT8"]
    data: NDArray[Any]


FIELD_TYPES: Mapping[str, Literal["FLOAT32", "INT32", "INT8"]] = {
    "norm": "FLOAT32",
    "packed": "INT8",  # there is no unsigned type
    "scale": "FLOAT32",
    "bias": "FLOAT32",
    "gelu": "INT32",
}
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"),
    "INT32": np.dtype("<i4"),
    "INT8": np.dtype("i1"),
}


@dataclass(frozen=True)
class TernaryLinearFields:
    """A ternary linear: K inputs, N outputs.

    Args:
        norm: float32 (K,), weight of the RMSNorm of its input.
        packed: uint8 (N, packed_width(K)), in the format of `layout`.
        scale: float32 (N,).
        bias: float32 (N,).
        gelu: whether the exact GELU follows.
    """

    norm: Floats
    packed: NDArray[np.uint8]
    scale: Floats
    bias: Floats
    gelu: bool

    @property
    def inputs(self) -> int:
        """K."""
        return len(self.norm)

    @property
    def outputs(self) -> int:
        """N."""
        return len(self.bias)

    @property
    def bytes(self) -> int:
        """Memory of its weights."""
        return self.norm.nbytes + self.packed.nbytes + self.scale.nbytes + self.bias.nbytes

    def serialized(self) -> tuple[Field, ...]:
        """The fields, in the order of `FIELD_TYPES`."""
        values = {
            "norm": self.norm,
            "packed": self.packed.reshape(-1).view(np.int8),
            "scale": self.scale,
            "bias": self.bias,
            "gelu": np.array([self.gelu]),
        }
        return tuple(
            Field(name, kind, np.ascontiguousarray(values[name], _DTYPES[kind]))
            for name, kind in FIELD_TYPES.items()
        )


def fields_of(linear: LinearWeights, *, gelu: bool) -> TernaryLinearFields:
    """The plugin of a ternary linear.

    Raises:
        LayoutError: its packed weights belong to another K.
        ShapeError: it isn't ternary, has no norm, or its vectors don't fit its weights.
    """
    if linear.scale is None or linear.norm is None:
        raise ShapeError("the plugin takes ternary weights with a scale and a norm of their input.")
    require_width(linear.weights, linear.inputs)
    outputs = len(linear.weights)
    if linear.norm.shape != (linear.inputs,) or not linear.scale.shape == linear.bias.shape == (outputs,):
        raise ShapeError(
            f"norm {linear.norm.shape}, scale {linear.scale.shape} and bias {linear.bias.shape} "
            f"don't fit {outputs} outputs of {linear.inputs} inputs."
        )
    return TernaryLinearFields(linear.norm, linear.weights, linear.scale, linear.bias, gelu)


def deserialized(data: Mapping[str, NDArray[Any]]) -> TernaryLinearFields:
    """Inverse of `TernaryLinearFields.serialized`.

    Raises:
        LayoutError: a field is missing, or their lengths don't fit each other.
    """
    missing = FIELD_TYPES.keys() - data.keys()
    if missing:
        raise LayoutError(
            f"the engine lacks {', '.join(sorted(missing))} of a ternary linear: build it again."
        )
    arrays = {name: np.array(data[name], _DTYPES[kind]) for name, kind in FIELD_TYPES.items()}
    outputs = len(arrays["bias"])
    packed = arrays["packed"].view(np.uint8)
    if not outputs or packed.size % outputs:
        raise LayoutError("the engine's packed weights don't fit its biases: build it again.")
    linear = LinearWeights(
        weights=packed.reshape(outputs, -1),
        inputs=len(arrays["norm"]),
        bias=arrays["bias"],
        scale=arrays["scale"],
        norm=arrays["norm"],
    )
    return fields_of(linear, gelu=bool(arrays["gelu"][0]))
