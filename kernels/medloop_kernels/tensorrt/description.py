"""A whole network as TensorRT's layers, as data: no library is needed to make it, to check it or to read it.

Shape suffixes: S image side · C channels · P pixels of a patch · T tokens · D width · H hidden width · K head
width · G key heads · R queries of a key head · N classes · L blocks. One image; there is no batch axis, so
an image's result can't depend on its batch. What is computed is `medloop_kernels.network`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.network import (
    BlockWeights,
    LinearWeights,
    NetworkMeasures,
    NetworkWeights,
    Traffic,
    require_weights,
)
from medloop_kernels.reference import LARGEST_CODE, RMS_EPSILON
from medloop_kernels.tensorrt.fields import fields_of
from medloop_kernels.tensorrt.operations import (
    Cast,
    Concatenate,
    Constant,
    Elementwise,
    MatrixMultiply,
    Operation,
    Reduce,
    Reshape,
    Shape,
    Slice,
    Softmax,
    Tensor,
    TernaryLinear,
    Transpose,
    Unary,
)

NORM_EPSILON = 1e-5
IMAGE, LOGITS, EMBEDDING, BLOCKS, FINITE = "image", "logits", "embedding", "blocks", "finite"


@dataclass(frozen=True)
class Layer:
    """One layer; it is called like its first output."""

    operation: Operation
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class NetworkDescription:
    """A network.

    Args:
        image: uint8 (S, S, C).
        layers: each after those whose outputs it reads.
        outputs: logits (1, N), embedding (1, D), blocks (L, 4) and finite (1,), all float32. `finite` is 1
            unless the input of a ternary linear was NaN or infinite.
    """

    image: Tensor
    layers: tuple[Layer, ...]
    outputs: tuple[Tensor, ...]

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights."""
        return sum(_weight_bytes(layer) for layer in self.layers)

    @property
    def traffic(self) -> Traffic:
        """Bytes that one image moves if every layer reads inputs from memory and writes outputs there.

        TensorRT fuses layers, which moves fewer activations.
        """
        moved = [
            tensor
            for layer in self.layers
            if not isinstance(layer.operation, Constant)
            for tensor in (*layer.inputs, *layer.outputs)
        ]
        constants = {layer.outputs[0] for layer in self.layers if isinstance(layer.operation, Constant)}
        return Traffic(self.weight_bytes, sum(tensor.bytes for tensor in moved if tensor not in constants))


def _weight_bytes(layer: Layer) -> int:
    if isinstance(layer.operation, TernaryLinear):
        return layer.operation.fields.bytes
    return layer.outputs[0].bytes if isinstance(layer.operation, Constant) else 0


def describe_network(weights: NetworkWeights) -> NetworkDescription:
    """The layers of a network.

    Raises:
        ShapeError: a layer doesn't fit the measures, or a linear of an MLP is in full precision.
        LayoutError: weights are int8, or packed weights belong to another K.
    """
    require_weights(weights)
    draft = _Draft()
    measures = weights.measures
    image = Tensor(IMAGE, (measures.image_size, measures.image_size, measures.channels), "uint8")
    x_TD = _embed(draft, image, weights)
    statistics = []
    for index, block in enumerate(weights.blocks):
        x_TD, of_block = _block(draft, f"blocks.{index}", block, measures, x_TD)
        statistics.append(of_block)
    embedding_1D = _layer_norm(draft, weights, draft.add("pooled", Reduce("mean", (0,)), x_TD))
    outputs = (
        _full_linear(draft, LOGITS, weights.head, embedding_1D),
        embedding_1D,
        draft.add(BLOCKS, Concatenate(0), *statistics),
        _finite(draft),
    )
    return NetworkDescription(image, tuple(draft.layers), outputs)


@dataclass
class _Draft:
    """Layers so far."""

    layers: list[Layer] = field(default_factory=list)

    def add(self, name: str, operation: Operation, *inputs: Tensor) -> Tensor:
        """The first output of a new layer; a name ends others as `name.1`, `name.2`."""
        return self.add_all(name, operation, *inputs)[0]

    def add_all(self, name: str, operation: Operation, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All outputs of a new layer."""
        made = operation.outputs(inputs)
        outputs = tuple(Tensor(f"{name}.{i}" if i else name, *made[i]) for i in range(len(made)))
        self.layers.append(Layer(operation, inputs, outputs))
        return outputs

    def constant(self, name: str, values: NDArray[np.float32] | float, shape: Shape) -> Tensor:
        """Weights, or one number."""
        return self.add(name, Constant(np.ascontiguousarray(values, np.float32).reshape(shape)))

    def with_number(self, name: str, operation: Elementwise, x: Tensor, number: float) -> Tensor:
        """Every element of x and a number."""
        return self.add(name, operation, x, self.constant(f"{name}.by", number, (1,) * len(x.shape)))

    def with_row(self, name: str, operation: Elementwise, x: Tensor, row: NDArray[np.float32]) -> Tensor:
        """Every row of the matrix x and a vector."""
        return self.add(name, operation, x, self.constant(f"{name}.by", row, (1, len(row))))


ADD, SUBTRACT, MULTIPLY, DIVIDE = (Elementwise(f) for f in ("add", "subtract", "multiply", "divide"))
MINIMUM, MAXIMUM = Elementwise("minimum"), Elementwise("maximum")


def _embed(draft: _Draft, image_SSC: Tensor, weights: NetworkWeights) -> Tensor:
    """Pixels in [-2, 2], cut into patches, each through one linear, plus its position."""
    size, channels, patch = (
        getattr(weights.measures, name) for name in ("image_size", "channels", "patch_size")
    )
    side = size // patch
    pixels = draft.add("pixels", Cast("float32"), image_SSC)
    pixels = draft.with_number("pixels.unit", DIVIDE, pixels, 255)
    pixels = draft.with_number("pixels.centred", SUBTRACT, pixels, 0.5)
    pixels = draft.with_number("pixels.scaled", MULTIPLY, pixels, 4)
    grid = draft.add("patches.grid", Reshape((side, patch, side, patch, channels)), pixels)
    grid = draft.add("patches.sorted", Transpose((0, 2, 1, 3, 4)), grid)
    patches_TP = draft.add("patches", Reshape((side * side, patch * patch * channels)), grid)
    x_TD = _full_linear(draft, "patch", weights.patch, patches_TP)
    position_TD = draft.constant("position", weights.position, weights.position.shape)
    return draft.add("embedded", ADD, x_TD, position_TD)


def _block(
    draft: _Draft, name: str, block: BlockWeights, measures: NetworkMeasures, x_TD: Tensor
) -> tuple[Tensor, Tensor]:
    """What the block adds to x, and its statistics (1, 4)."""
    qkv_TO = _linear(draft, f"{name}.qkv", block.qkv, x_TD)
    mixed_TD = _attention(draft, f"{name}.attention", measures, qkv_TO)
    x_TD = draft.add(f"{name}.attended", ADD, x_TD, _linear(draft, f"{name}.out", block.out, mixed_TD))
    fc1 = TernaryLinear(fields_of(block.fc1, gelu=True))
    hidden_TH = draft.add(f"{name}.fc1", fc1, x_TD)
    fc2 = TernaryLinear(fields_of(block.fc2, gelu=False))
    y_TD, codes_TH, _ = draft.add_all(f"{name}.fc2", fc2, hidden_TH)
    statistics = _statistics(draft, f"{name}.statistics", hidden_TH, codes_TH)
    return draft.add(f"{name}.output", ADD, x_TD, y_TD), statistics


def _linear(draft: _Draft, name: str, linear: LinearWeights, x_TI: Tensor) -> Tensor:
    """Float32 (T, O)."""
    if linear.weights.dtype == np.float32:
        return _full_linear(draft, name, linear, x_TI)
    return draft.add(name, TernaryLinear(fields_of(linear, gelu=False)), x_TI)


def _full_linear(draft: _Draft, name: str, linear: LinearWeights, x_TI: Tensor) -> Tensor:
    """Float32 (T, O): the RMSNorm of the input where there is one, the product and the bias."""
    if linear.norm is not None:
        x_TI = _rms_norm(draft, f"{name}.norm", linear.norm, x_TI)
    weight_OI = draft.constant(f"{name}.weight", linear.weights, linear.weights.shape)
    product_TO = draft.add(f"{name}.product", MatrixMultiply(transpose_second=True), x_TI, weight_OI)
    return draft.with_row(name, ADD, product_TO, linear.bias)


def _rms_norm(draft: _Draft, name: str, weight: NDArray[np.float32], x_TI: Tensor) -> Tensor:
    """As `reference.rms_norm`, with the mean in single precision."""
    return draft.with_row(name, MULTIPLY, _over_root_mean_square(draft, name, x_TI, RMS_EPSILON), weight)


def _layer_norm(draft: _Draft, weights: NetworkWeights, x_1D: Tensor) -> Tensor:
    """(x − mean) / sqrt(variance + 1e-5) · weight + bias (Ba et al., arXiv 1607.06450, equation 4)."""
    mean = draft.add("norm.mean", Reduce("mean", (1,)), x_1D)
    centred = draft.add("norm.centred", SUBTRACT, x_1D, mean)
    normed = _over_root_mean_square(draft, "norm", centred, NORM_EPSILON)
    weighted = draft.with_row("norm.weighted", MULTIPLY, normed, weights.norm_weight)
    return draft.with_row(EMBEDDING, ADD, weighted, weights.norm_bias)


def _over_root_mean_square(draft: _Draft, name: str, x_TI: Tensor, epsilon: float) -> Tensor:
    """Each row of x over sqrt(mean(row²) + epsilon)."""
    squares = draft.add(f"{name}.squares", MULTIPLY, x_TI, x_TI)
    mean_square = draft.add(f"{name}.mean_square", Reduce("mean", (1,)), squares)
    shifted = draft.with_number(f"{name}.shifted", ADD, mean_square, epsilon)
    root = draft.add(f"{name}.root", Unary("sqrt"), shifted)
    return draft.add(f"{name}.normed", DIVIDE, x_TI, root)


def _attention(draft: _Draft, name: str, measures: NetworkMeasures, qkv_TO: Tensor) -> Tensor:
    """softmax(q kᵀ / √K) v (Vaswani et al., arXiv 1706.03762, equation 1); R query heads share a key head."""
    tokens, heads, groups = qkv_TO.shape[0], measures.heads, measures.key_heads
    shared, head_width = heads // groups, measures.width // heads
    rows = tokens * shared
    queries, keys = heads * head_width, groups * head_width

    def heads_of(part: str, start: int, width: int, each: int) -> Tensor:
        """(G, T·each, K) of some columns."""
        columns = draft.add(f"{name}.{part}.columns", Slice((0, start), (tokens, width)), qkv_TO)
        split = draft.add(f"{name}.{part}.split", Reshape((tokens, groups, each * head_width)), columns)
        sorted_ = draft.add(f"{name}.{part}.sorted", Transpose((1, 0, 2)), split)
        return draft.add(f"{name}.{part}", Reshape((groups, tokens * each, head_width)), sorted_)

    q_GRK = heads_of("q", 0, queries, shared)
    k_GTK = heads_of("k", queries, keys, 1)
    v_GTK = heads_of("v", queries + keys, keys, 1)
    score_GRT = draft.add(f"{name}.product", MatrixMultiply(transpose_second=True), q_GRK, k_GTK)
    score_GRT = draft.with_number(f"{name}.score", MULTIPLY, score_GRT, head_width**-0.5)
    share_GRT = draft.add(f"{name}.share", Softmax(), score_GRT)
    mixed_GRK = draft.add(f"{name}.mixed", MatrixMultiply(), share_GRT, v_GTK)
    split = draft.add(f"{name}.joined", Reshape((groups, rows // shared, shared * head_width)), mixed_GRK)
    sorted_ = draft.add(f"{name}.sorted", Transpose((1, 0, 2)), split)
    return draft.add(name, Reshape((tokens, measures.width)), sorted_)


def _statistics(draft: _Draft, name: str, hidden_TH: Tensor, codes_TH: Tensor) -> Tensor:
    """(1, 4): mean, standard deviation, share of codes at ±127, share of channels without a code but 0.

    Codes are whole numbers, so that clipping their size tells one from another without a comparison.
    """
    everything = (0, 1)
    mean = draft.add(f"{name}.mean", Reduce("mean", everything), hidden_TH)
    centred = draft.add(f"{name}.centred", SUBTRACT, hidden_TH, mean)
    squares = draft.add(f"{name}.squares", MULTIPLY, centred, centred)
    variance = draft.add(f"{name}.variance", Reduce("mean", everything), squares)
    spread = draft.add(f"{name}.spread", Unary("sqrt"), variance)

    magnitude = draft.add(
        f"{name}.magnitude", Unary("abs"), draft.add(f"{name}.codes", Cast("float32"), codes_TH)
    )
    over = draft.with_number(f"{name}.over", SUBTRACT, magnitude, LARGEST_CODE - 1)
    at_limit = draft.with_number(f"{name}.at_limit", MAXIMUM, over, 0)
    saturated = draft.add(f"{name}.saturated", Reduce("mean", everything), at_limit)

    largest_1H = draft.add(f"{name}.largest", Reduce("max", (0,)), magnitude)
    alive_1H = draft.with_number(f"{name}.alive", MINIMUM, largest_1H, 1)
    share_alive = draft.add(f"{name}.share_alive", Reduce("mean", everything), alive_1H)
    lacking = draft.with_number(f"{name}.lacking", SUBTRACT, share_alive, 1)
    dead = draft.add(f"{name}.dead", Unary("abs"), lacking)
    return draft.add(name, Concatenate(1), mean, spread, saturated, dead)


def _finite(draft: _Draft) -> Tensor:
    """(1,): the smallest of what the ternary linears say."""
    flags = [layer.outputs[2] for layer in draft.layers if isinstance(layer.operation, TernaryLinear)]
    all_flags = draft.add("finite.each", Cast("float32"), draft.add("finite.flags", Concatenate(0), *flags))
    return draft.add(FINITE, Reduce("min", (0,)), all_flags)
