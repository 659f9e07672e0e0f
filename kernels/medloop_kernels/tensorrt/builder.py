"""From the description of a network to TensorRT's engine: each operation is one layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from typing import Any

import tensorrt as trt

from medloop_kernels.errors import BackendUnavailable
from medloop_kernels.tensorrt.description import NetworkDescription
from medloop_kernels.tensorrt.operations import (
    Cast,
    Concatenate,
    Constant,
    Elementwise,
    MatrixMultiply,
    Operation,
    Reduce,
    Reshape,
    Slice,
    Softmax,
    TernaryLinear,
    Transpose,
    Unary,
)
from medloop_kernels.tensorrt.plugin import TernaryLinearPlugin, register_plugin

ELEMENTWISE = {
    "add": trt.ElementWiseOperation.SUM,
    "subtract": trt.ElementWiseOperation.SUB,
    "multiply": trt.ElementWiseOperation.PROD,
    "divide": trt.ElementWiseOperation.DIV,
    "maximum": trt.ElementWiseOperation.MAX,
    "minimum": trt.ElementWiseOperation.MIN,
}
UNARY = {"abs": trt.UnaryOperation.ABS, "sqrt": trt.UnaryOperation.SQRT}
REDUCE = {
    "mean": trt.ReduceOperation.AVG,
    "max": trt.ReduceOperation.MAX,
    "min": trt.ReduceOperation.MIN,
}
DTYPES = {"float32": trt.float32, "int8": trt.int8, "int32": trt.int32, "uint8": trt.uint8}


def build_engine(description: NetworkDescription, logger: Any) -> Any:
    """The engine's bytes; takes TensorRT a minute or more, since it times kernels on this GPU.

    Args:
        description: of the network.
        logger: a tensorrt.ILogger, which says why a build failed.

    Raises:
        BackendUnavailable: TensorRT can't build it.
    """
    register_plugin()
    builder = trt.Builder(logger)
    # Strongly typed: every tensor has the dtype that the description gives it, and no scale is asked of int8.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _populate(network, description)
    configuration = builder.create_builder_config()
    configuration.clear_flag(trt.BuilderFlag.TF32)  # float32 products would lose 13 of 23 bits
    engine = builder.build_serialized_network(network, configuration)
    if engine is None:
        raise BackendUnavailable("TensorRT can't build this network: its log says why; choose `cuda`.")
    return engine


def _populate(network: Any, description: NetworkDescription) -> None:
    image = description.image
    tensors = {image: network.add_input(image.name, DTYPES[image.dtype], image.shape)}
    for layer in description.layers:
        added = add_layer(layer.operation, network, [tensors[tensor] for tensor in layer.inputs])
        added.name = layer.outputs[0].name
        for index, tensor in enumerate(layer.outputs):
            tensors[tensor] = added.get_output(index)
            tensors[tensor].name = tensor.name
    for tensor in description.outputs:
        network.mark_output(tensors[tensor])


@singledispatch
def add_layer(operation: Operation, network: Any, inputs: Sequence[Any]) -> Any:
    """The layer of an operation, added to a tensorrt.INetworkDefinition."""
    raise NotImplementedError(f"no layer of TensorRT is known for {operation}")


@add_layer.register
def _(operation: Constant, network: Any, inputs: Sequence[Any]) -> Any:
    return network.add_constant(operation.values.shape, trt.Weights(operation.values))


@add_layer.register
def _(operation: Cast, network: Any, inputs: Sequence[Any]) -> Any:
    return network.add_cast(inputs[0], DTYPES[operation.dtype])


@add_layer.register
def _(operation: Elementwise, network: Any, inputs: Sequence[Any]) -> Any:
    return network.add_elementwise(*inputs, ELEMENTWISE[operation.function])


@add_layer.register
def _(operation: Unary, network: Any, inputs: Sequence[Any]) -> Any:
    return network.add_unary(inputs[0], UNARY[operation.function])


@add_layer.register
def _(operation: Reduce, network: Any, inputs: Sequence[Any]) -> Any:
    return network.add_reduce(inputs[0], REDUCE[operation.function], _bits(operation.axes), keep_dims=True)


@add_layer.register
def _(operation: MatrixMultiply, network: Any, inputs: Sequence[Any]) -> Any:
    plain, transposed = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE
    second = transposed if operation.transpose_second else plain
    return network.add_matrix_multiply(inputs[0], plain, inputs[1], second)


@add_layer.register
def _(operation: Transpose, network: Any, inputs: Sequence[Any]) -> Any:
    layer = network.add_shuffle(inputs[0])
    layer.first_transpose = trt.Permutation(operation.permutation)
    return layer


@add_layer.register
def _(operation: Reshape, network: Any, inputs: Sequence[Any]) -> Any:
    layer = network.add_shuffle(inputs[0])
    layer.reshape_dims = operation.shape
    return layer


@add_layer.register
def _(operation: Slice, network: Any, inputs: Sequence[Any]) -> Any:
    return network.add_slice(inputs[0], operation.start, operation.shape, (1,) * len(operation.shape))


@add_layer.register
def _(operation: Softmax, network: Any, inputs: Sequence[Any]) -> Any:
    layer = network.add_softmax(inputs[0])
    layer.axes = _bits([len(inputs[0].shape) - 1])
    return layer


@add_layer.register
def _(operation: Concatenate, network: Any, inputs: Sequence[Any]) -> Any:
    layer = network.add_concatenation(list(inputs))
    layer.axis = operation.axis
    return layer


@add_layer.register
def _(operation: TernaryLinear, network: Any, inputs: Sequence[Any]) -> Any:
    return network.add_plugin_v3(list(inputs), [], TernaryLinearPlugin(operation.fields))


def _bits(axes: Iterable[int]) -> int:
    return sum(1 << axis for axis in axes)
