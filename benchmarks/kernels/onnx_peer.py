"""The same network as an ONNX graph, for ONNX Runtime in float32 and with dynamic int8 quantisation.

The graph takes pixels in [0, 1], float32 (B, H, W, C), has the packed model's weights multiplied out, and
none of its int8 codes: ONNX Runtime quantises activations its own way. Weights have 7 bits of the 8, as ONNX
Runtime advises for processors without VNNI, where its sums saturate otherwise. Operators are those that its
optimiser knows and fuses (Gelu, SimplifiedLayerNormalization, LayerNormalization).
"""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from medloop_kernels import unpack
from medloop_model.packed_layers import FullLinear, PackedNetwork, TernaryLinear
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

OPSET = 20  # the first with Gelu
EPSILON = 1e-5


class Graph:
    """Nodes and constants as they are added; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> str:
        names = [f"{operator.lower()}_{len(self.nodes)}_{index}" for index in range(outputs)]
        node = helper.make_node(operator, list(inputs), names, domain=domain, **attributes)
        self.nodes.append(node)
        return names[0]

    def linear(self, layer: TernaryLinear | FullLinear, x: str) -> str:
        """RMSNorm, product, bias."""
        if isinstance(layer, FullLinear):
            weights = layer.weight
        else:
            weights = unpack(layer.codes, len(layer.norm)) * layer.scale[:, None]
        # Lives in ONNX's own domain though it is ONNX Runtime's: that is where its optimiser puts it.
        normed = self.add(
            "SimplifiedLayerNormalization", x, self.constant(layer.norm), axis=-1, epsilon=EPSILON
        )
        product = self.add("MatMul", normed, self.constant(weights.T))
        return self.add("Add", product, self.constant(layer.bias))


def graph_of(network: PackedNetwork) -> onnx.ModelProto:
    """The network in float32."""
    architecture, graph = network.architecture, Graph()
    p, channels, side = (
        architecture.patch_size,
        architecture.channels,
        architecture.image_size // architecture.patch_size,
    )
    width, head_width, tokens = architecture.width, architecture.head_width, architecture.tokens
    half, four = graph.constant(np.float32(0.5)), graph.constant(np.float32(4))

    def reshape(x: str, *shape: int) -> str:
        return graph.add("Reshape", x, graph.constant(np.array(shape, dtype=np.int64)))

    x = graph.add("Mul", graph.add("Sub", "pixels", half), four)
    x = reshape(x, -1, side, p, side, p, channels)
    x = reshape(graph.add("Transpose", x, perm=[0, 1, 3, 2, 4, 5]), -1, tokens, p * p * channels)
    x = graph.add("MatMul", x, graph.constant(network.patch_weight.T))
    x = graph.add("Add", x, graph.constant(network.patch_bias + network.position))
    sizes = graph.constant(np.array([width, head_width, head_width], dtype=np.int64))
    scale = graph.constant(np.float32(head_width**-0.5))
    for block in network.blocks:
        query = graph.add("Split", graph.linear(block.qkv, x), sizes, outputs=3, axis=2)
        key, value = query[:-1] + "1", query[:-1] + "2"
        queries = reshape(query, -1, tokens * architecture.heads, head_width)
        scores = graph.add("MatMul", queries, graph.add("Transpose", key, perm=[0, 2, 1]))
        shares = graph.add("Softmax", graph.add("Mul", scores, scale), axis=-1)
        mixed = reshape(graph.add("MatMul", shares, value), -1, tokens, width)
        x = graph.add("Add", x, graph.linear(block.out, mixed))
        hidden = graph.add("Gelu", graph.linear(block.fc1, x))
        x = graph.add("Add", x, graph.linear(block.fc2, hidden))
    pooled = graph.add("ReduceMean", x, graph.constant(np.array([1], dtype=np.int64)), keepdims=0)
    normed = graph.add(
        "LayerNormalization",
        pooled,
        graph.constant(network.norm_weight),
        graph.constant(network.norm_bias),
        epsilon=EPSILON,
    )
    product = graph.add("MatMul", normed, graph.constant(network.head_weight.T))
    graph.nodes.append(helper.make_node("Add", [product, graph.constant(network.head_bias)], ["logits"]))
    size = architecture.image_size
    inputs = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", size, size, channels])
    outputs = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(architecture.classes)])
    return helper.make_model(
        helper.make_graph(graph.nodes, "network", [inputs], [outputs], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )


class OnnxPeer:
    """One session, one thread: `peer(pixels)` gives logits.

    Args:
        network: what to run.
        int8: quantise the linears dynamically: int8 weights a channel, uint8 activations a tensor.
    """

    def __init__(self, network: PackedNetwork, *, int8: bool) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        with TemporaryDirectory() as folder:
            path = Path(folder) / "float32.onnx"
            onnx.save(graph_of(network), path)
            if int8:
                quantized = Path(folder) / "int8.onnx"
                logging.disable(logging.WARNING)  # a line for each tensor whose type is the default one
                quantize_dynamic(
                    path,
                    quantized,
                    op_types_to_quantize=["MatMul"],
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                    reduce_range=True,
                    extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
                )
                logging.disable(logging.NOTSET)
                path = quantized
            self.bytes = path.stat().st_size
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(None, {"pixels": pixels})[0]
        return logits
