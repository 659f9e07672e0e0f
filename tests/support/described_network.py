"""Runs a described network in numpy, layer by layer, and holds every array to what was described of it."""

from __future__ import annotations

from functools import singledispatch

import numpy as np
from medloop_kernels import NonFiniteInput, select
from medloop_kernels.tensorrt.description import NetworkDescription
from medloop_kernels.tensorrt.operations import (
    Cast,
    Concatenate,
    Constant,
    Elementwise,
    MatrixMultiply,
    Reduce,
    Reshape,
    Slice,
    Softmax,
    TernaryLinear,
    Transpose,
    Unary,
)


def run_description(description: NetworkDescription, image: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs, by name."""
    arrays = {description.image: image}
    for layer in description.layers:
        made = compute(layer.operation, *(arrays[tensor] for tensor in layer.inputs))
        made = made if isinstance(made, tuple) else (made,)
        for tensor, array in zip(layer.outputs, made, strict=True):
            assert (array.shape, array.dtype) == (tensor.shape, tensor.dtype), tensor.name
            arrays[tensor] = array
    return {tensor.name: arrays[tensor] for tensor in description.outputs}


@singledispatch
def compute(operation, *inputs):
    raise NotImplementedError(operation)


@compute.register
def _(operation: Constant):
    return operation.values


@compute.register
def _(operation: Cast, x):
    return x.astype(operation.dtype)


@compute.register
def _(operation: Elementwise, x, y):
    return getattr(np, operation.function)(x, y)


@compute.register
def _(operation: Unary, x):
    return getattr(np, operation.function)(x)


@compute.register
def _(operation: Reduce, x):
    return getattr(x, operation.function)(axis=operation.axes, keepdims=True)


@compute.register
def _(operation: MatrixMultiply, x, y):
    return x @ (y.swapaxes(-1, -2) if operation.transpose_second else y)


@compute.register
def _(operation: Transpose, x):
    return np.ascontiguousarray(x.transpose(operation.permutation))


@compute.register
def _(operation: Reshape, x):
    return x.reshape(operation.shape)


@compute.register
def _(operation: Slice, x):
    box = [
        slice(start, start + length) for start, length in zip(operation.start, operation.shape, strict=True)
    ]
    return x[tuple(box)]


@compute.register
def _(operation: Softmax, x):
    shares = np.exp(x - x.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


@compute.register
def _(operation: Concatenate, *inputs):
    return np.concatenate(inputs, axis=operation.axis)


@compute.register
def _(operation: TernaryLinear, x):
    fields, kernels = operation.fields, select("cpu")
    try:
        codes, step = kernels.quantize(x, fields.norm)
    except NonFiniteInput:
        nothing = np.zeros(x.shape, np.int8), np.zeros(1, np.int32)
        return np.zeros((len(x), fields.outputs), np.float32), *nothing
    y = kernels.ternary_linear(codes, step, fields.packed, fields.scale, fields.bias, gelu=fields.gelu)
    return y, codes, np.ones(1, np.int32)
