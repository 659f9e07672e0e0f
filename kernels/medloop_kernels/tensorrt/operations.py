"""What a layer can be: each class is one layer of TensorRT's network definition, here without TensorRT.

An operation knows the shape and dtype of what it makes; `builder.py` adds it to a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.errors import ShapeError
from medloop_kernels.tensorrt.fields import TernaryLinearFields

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """What flows between layers.

    Args:
        name: its own in the network.
        shape: of one image; there is no batch axis.
        dtype: numpy's name of it.
    """

    name: str
    shape: Shape
    dtype: str

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Operation(Protocol):
    """One kind of layer with its parameters."""

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """Shape and dtype of each output.

        Raises:
            ShapeError: the inputs don't fit.
        """
        ...


@dataclass(frozen=True)
class Constant:
    """Weights, C-contiguous."""

    values: NDArray[Any]

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """As the values."""
        return [(self.values.shape, self.values.dtype.name)]


@dataclass(frozen=True)
class Cast:
    """The same numbers in another dtype."""

    dtype: str

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """As the input, in the other dtype."""
        return [(inputs[0].shape, self.dtype)]


@dataclass(frozen=True)
class Elementwise:
    """Two tensors of equally many axes; an axis of length 1 is repeated."""

    function: Literal["add", "subtract", "multiply", "divide", "maximum", "minimum"]

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """The longer of each axis."""
        first, second = inputs
        pairs = list(zip(first.shape, second.shape, strict=False))
        alike = len(first.shape) == len(second.shape) and first.dtype == second.dtype
        _require(alike and all(a == b or 1 in (a, b) for a, b in pairs), self.function, inputs)
        return [(tuple(max(pair) for pair in pairs), first.dtype)]


@dataclass(frozen=True)
class Unary:
    """A function of each number."""

    function: Literal["abs", "sqrt"]

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """As the input."""
        return [(inputs[0].shape, inputs[0].dtype)]


@dataclass(frozen=True)
class Reduce:
    """One number for all along some axes, which stay with length 1."""

    function: Literal["mean", "max", "min"]
    axes: tuple[int, ...]

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """Length 1 along the axes."""
        shape = inputs[0].shape
        _require(max(self.axes) < len(shape), self.function, inputs)
        kept = tuple(1 if axis in self.axes else length for axis, length in enumerate(shape))
        return [(kept, inputs[0].dtype)]


@dataclass(frozen=True)
class MatrixMultiply:
    """(…, M, K) times (…, K, N), or (…, N, K) if the second is transposed: (…, M, N)."""

    transpose_second: bool = False

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """Rows of the first, columns of the second."""
        first, second = inputs
        *stack, rows, inner = first.shape
        *other_stack, inner_second, columns = second.shape
        if self.transpose_second:
            inner_second, columns = columns, inner_second
        _require((stack, inner) == (other_stack, inner_second), "matrix product", inputs)
        return [((*stack, rows, columns), first.dtype)]


@dataclass(frozen=True)
class Transpose:
    """Axis i of the output is axis `permutation[i]` of the input."""

    permutation: tuple[int, ...]

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """The same axes in another order."""
        shape = inputs[0].shape
        _require(sorted(self.permutation) == list(range(len(shape))), "transpose", inputs)
        return [(tuple(shape[axis] for axis in self.permutation), inputs[0].dtype)]


@dataclass(frozen=True)
class Reshape:
    """The same numbers in the same order under other axes."""

    shape: Shape

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """The new shape."""
        _require(np.prod(self.shape) == np.prod(inputs[0].shape), f"reshape to {self.shape}", inputs)
        return [(self.shape, inputs[0].dtype)]


@dataclass(frozen=True)
class Slice:
    """A box of the input, without gaps."""

    start: tuple[int, ...]
    shape: Shape

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """The box's shape."""
        edges = zip(self.start, self.shape, inputs[0].shape, strict=True)
        _require(all(start + length <= whole for start, length, whole in edges), "slice", inputs)
        return [(self.shape, inputs[0].dtype)]


@dataclass(frozen=True)
class Softmax:
    """Along the last axis."""

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """As the input."""
        return [(inputs[0].shape, inputs[0].dtype)]


@dataclass(frozen=True)
class Concatenate:
    """Tensors behind each other along one axis."""

    axis: int

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """The axis as long as all together."""
        others = {tensor.shape[: self.axis] + tensor.shape[self.axis + 1 :] for tensor in inputs}
        _require(len(others) == 1 and len({tensor.dtype for tensor in inputs}) == 1, "concatenate", inputs)
        shape = list(inputs[0].shape)
        shape[self.axis] = sum(tensor.shape[self.axis] for tensor in inputs)
        return [(tuple(shape), inputs[0].dtype)]


@dataclass(frozen=True)
class TernaryLinear:
    """The plugin: `reference.quantize`, then `reference.ternary_linear`, of float32 (M, K).

    Its outputs are y, float32 (M, N); the int8 codes of its input (M, K), which monitoring counts; and int32
    (1,), 1 unless a value of the input was NaN or infinite.
    """

    fields: TernaryLinearFields

    def outputs(self, inputs: Sequence[Tensor]) -> list[tuple[Shape, str]]:
        """As above."""
        tokens, columns = inputs[0].shape
        _require((columns, inputs[0].dtype) == (self.fields.inputs, "float32"), "ternary linear", inputs)
        return [((tokens, self.fields.outputs), "float32"), ((tokens, columns), "int8"), ((1,), "int32")]


def _require(fits: bool, what: str, inputs: Sequence[Tensor]) -> None:
    if not fits:
        shapes = ", ".join(f"{tensor.name} {tensor.dtype} {tensor.shape}" for tensor in inputs)
        raise ShapeError(f"{what}: {shapes} don't fit.")
