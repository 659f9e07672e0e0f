"""A network on the GPU: weights uploaded once, memory allocated once, a batch replayed as a CUDA graph.

The kernels of one batch, captured once for each size of batch:

    patch_embedding
    a block    qkv → attention → out + x → fc1, GELU → sum_activity → fc2 + x; a linear is quantize and
               ternary_linear, or full_linear
    pool → classify, block_statistics

A batch goes in parts of …, 4, 2 and 1 images, so that few graphs serve batches of any size in the memory of
the largest. What an image gives is the same in each: no kernel's sums depend on what stands beside an image,
and a linear takes tiles of tokens even where a few would be faster otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.cuda.driver import THREADS, Driver
from medloop_kernels.cuda.kernels import (
    WARP,
    WIDEST_HEAD,
    Finish,
    Kernels,
    attention_kernel,
    blocks_of,
    tiles,
    warps,
)
from medloop_kernels.errors import LayoutError, NonFiniteInput, ShapeError
from medloop_kernels.layout import unpack
from medloop_kernels.network import (
    STATISTICS,
    LinearWeights,
    NetworkOutput,
    NetworkWeights,
    Traffic,
    require_images,
    require_weights,
)

MOST_TOKENS = 4096
"""Of the largest graph, if that is an image or more: enough to fill a GPU, and little memory."""


@dataclass(frozen=True)
class _Linear:
    """A linear's weights on the GPU; no `scale` in full precision, no `norm` where the input is as it is."""

    inputs: int
    outputs: int
    weights: Any
    bias: Any
    scale: Any
    norm: Any


@dataclass(frozen=True)
class _Workspace:
    """Activations of the largest graph's images, float32 if not said otherwise; M = images · tokens.

    Args:
        images: uint8 (images, image_size, image_size, channels).
        x: (M, D), the residual stream.
        qkv: (M, queries, keys and values).
        mixed: (M, D), what attention gives.
        hidden: (M, H).
        codes: int8 (M, D or H), step: (M,); of the linear in hand.
        activity: float64 (L, images, parts, 4), as sum_activity leaves it.
        pooled: (images, D).
        embedding, logits, statistics: as in `NetworkOutput`.
        finite: int32 (1,), 0 once an activation is NaN or infinite.
    """

    images: Any
    x: Any
    qkv: Any
    mixed: Any
    hidden: Any
    codes: Any
    step: Any
    activity: Any
    pooled: Any
    embedding: Any
    logits: Any
    statistics: Any
    finite: Any


class Network:
    """A compiled network; see `medloop_kernels.network.CompiledNetwork`.

    Calls from several Python threads wait for each other, also those of other networks: there is one GPU.

    Args:
        weights: what to compile; copied to the GPU.
        driver: of the GPU.
        kernels: on it.

    Raises:
        ShapeError: a layer doesn't fit the measures, or a head is wider than the kernels can.
        LayoutError: packed weights are damaged, or of a kind that the GPU's kernels don't have.
    """

    def __init__(self, weights: NetworkWeights, driver: Driver, kernels: Kernels) -> None:
        require_weights(weights)
        if weights.measures.head_width > WIDEST_HEAD:
            raise ShapeError(
                f"the GPU's attention takes heads of up to {WIDEST_HEAD} columns, not "
                f"{weights.measures.head_width}: choose `cpu`, or train with more heads."
            )
        self.measures = weights.measures
        self._driver = driver
        self._launch = kernels.launch
        self._lock = kernels.lock
        self._graphs: dict[int, Callable[[], None]] = {}
        self._sizes = _sizes(weights.measures.tokens)
        self._traffic = {images: _traffic(weights, images) for images in self._sizes}
        self._moved = Traffic(0, 0)
        self._weight_bytes = 0
        self._workspace_bytes = 0
        with self._lock:
            driver.attach()
            self._patch, self._head = self._uploaded(weights.patch), self._uploaded(weights.head)
            self._blocks = [
                [self._uploaded(linear) for linear in (block.qkv, block.out, block.fc1, block.fc2)]
                for block in weights.blocks
            ]
            self._position = self._upload(weights.position)
            self._norm = (self._upload(weights.norm_weight), self._upload(weights.norm_bias))
            self._workspace = self._allocated()

    def __call__(self, images: NDArray[np.uint8]) -> NetworkOutput:
        """Logits, embedding and activity of uint8 images (B, H, W, C).

        Raises:
            ShapeError: another dtype, shape or memory order.
            NonFiniteInput: an activation became NaN or infinite.
        """
        require_images(images, self.measures)
        count, depth = len(images), len(self._blocks)
        logits = np.empty((count, self.measures.classes), dtype=np.float32)
        embedding = np.empty((count, self.measures.width), dtype=np.float32)
        statistics = np.empty((count, depth, STATISTICS), dtype=np.float32)
        with self._lock:
            self._driver.attach()
            first = 0
            for size in _parts(count, self._sizes):
                part = slice(first, first + size)
                self._run(images[part])
                self._driver.download(self._workspace.logits, logits[part])
                self._driver.download(self._workspace.embedding, embedding[part])
                self._driver.download(self._workspace.statistics, statistics[part])
                first += size
        return NetworkOutput(logits, embedding, statistics)

    @property
    def traffic(self) -> Traffic:
        """Bytes moved since the network was compiled: weights once a graph, activations once an image."""
        return self._moved

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights on the GPU."""
        return self._weight_bytes

    @property
    def workspace_bytes(self) -> int:
        """Memory of the activations on the GPU; allocated once, so the same after every call."""
        return self._workspace_bytes

    # ---- memory ----

    def _uploaded(self, linear: LinearWeights) -> _Linear:
        if linear.weights.dtype == np.uint8:
            unpack(linear.weights, linear.inputs)  # refuses damaged bytes, and says where
        elif linear.weights.dtype != np.float32:
            raise LayoutError(
                f"the GPU's kernels take packed or float32 weights, not {linear.weights.dtype}: pack them, "
                "or choose `cpu`."
            )
        return _Linear(
            linear.inputs,
            outputs=len(linear.weights),
            weights=self._upload(linear.weights),
            bias=self._upload(linear.bias),
            scale=None if linear.scale is None else self._upload(linear.scale),
            norm=None if linear.norm is None else self._upload(linear.norm),
        )

    def _upload(self, array: NDArray[Any]) -> Any:
        self._weight_bytes += array.nbytes
        return self._driver.upload(np.ascontiguousarray(array))

    def _allocated(self) -> _Workspace:
        m, depth, images = self.measures, len(self._blocks), self._sizes[0]
        tokens = images * m.tokens

        def floats(*shape: int) -> Any:
            return self._allocate(np.float32, *shape)

        return _Workspace(
            images=self._allocate(np.uint8, images, m.image_size, m.image_size, m.channels),
            x=floats(tokens, m.width),
            qkv=floats(tokens, m.qkv_width),
            mixed=floats(tokens, m.width),
            hidden=floats(tokens, m.hidden),
            codes=self._allocate(np.int8, tokens, max(m.width, m.hidden)),
            step=floats(tokens),
            activity=self._allocate(np.float64, depth, images, blocks_of(m.hidden, WARP), STATISTICS),
            pooled=floats(images, m.width),
            embedding=floats(images, m.width),
            logits=floats(images, m.classes),
            statistics=floats(images, depth, STATISTICS),
            finite=self._allocate(np.int32, 1),
        )

    def _allocate(self, dtype: type[np.generic], *shape: int) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._workspace_bytes += size
        return self._driver.allocate(size)

    # ---- one part of a batch ----

    def _run(self, images: NDArray[np.uint8]) -> None:
        count = len(images)
        if count not in self._graphs:
            self._graphs[count] = self._driver.capture(partial(self._forward, count))
        self._driver.overwrite(self._workspace.images, images)
        self._graphs[count]()
        moved, more = self._moved, self._traffic[count]
        self._moved = Traffic(moved.weights + more.weights, moved.activations + more.activations)
        finite = np.empty(1, dtype=np.int32)
        self._driver.download(self._workspace.finite, finite)
        if not finite[0]:
            raise NonFiniteInput("an activation is NaN or infinite: the weights of this network are damaged.")

    def _forward(self, images: int) -> None:
        """Launch everything; a captured graph is what this launches."""
        m, w = self.measures, self._workspace
        tokens = images * m.tokens
        self._launch(
            "patch_embedding",
            tiles(tokens, m.width),
            *(w.images, self._patch.weights, self._patch.bias, self._position, w.x, w.finite),
            *(tokens, m.image_size, m.channels, m.patch_size, m.width),
        )
        for index, (qkv, out, fc1, fc2) in enumerate(self._blocks):
            self._linear(qkv, w.x, w.qkv, tokens, Finish.STORE)
            self._attention(images)
            self._linear(out, w.mixed, w.x, tokens, Finish.RESIDUAL)
            self._linear(fc1, w.x, w.hidden, tokens, Finish.GELU)
            self._quantize(fc2, w.hidden, tokens)
            parts = (blocks_of(m.hidden, WARP), images)
            self._launch("sum_activity", parts, w.hidden, w.codes, w.activity, index, m.tokens, m.hidden)
            self._multiply(fc2, w.x, tokens, Finish.RESIDUAL)
        self._classify(images)

    def _linear(self, linear: _Linear, x: Any, y: Any, tokens: int, finish: Finish) -> None:
        if linear.scale is not None:
            self._quantize(linear, x, tokens)
            self._multiply(linear, y, tokens, finish)
            return
        self._launch(
            "full_linear",
            tiles(tokens, linear.outputs),
            *(x, linear.norm, linear.weights, linear.bias, y, self._workspace.finite),
            *(tokens, linear.inputs, linear.outputs, finish),
        )

    def _quantize(self, linear: _Linear, x: Any, tokens: int) -> None:
        w = self._workspace
        self._launch(
            "quantize", warps(tokens), x, linear.norm, w.codes, w.step, w.finite, tokens, linear.inputs
        )

    def _multiply(self, linear: _Linear, y: Any, tokens: int, finish: Finish) -> None:
        w = self._workspace
        self._launch(
            "ternary_linear",
            tiles(tokens, linear.outputs),
            *(w.codes, w.step, linear.weights, linear.scale, linear.bias, y),
            *(tokens, linear.inputs, linear.outputs, finish),
        )

    def _attention(self, images: int) -> None:
        m, w = self.measures, self._workspace
        queries = m.tokens * m.heads // m.key_heads
        self._launch(
            attention_kernel(m.head_width),
            (blocks_of(queries, THREADS), images * m.key_heads),
            *(w.qkv, w.mixed, w.finite),
            *(m.tokens, m.heads, m.key_heads, m.head_width),
        )

    def _classify(self, images: int) -> None:
        m, w, depth = self.measures, self._workspace, len(self._blocks)
        self._launch("pool", (blocks_of(m.width, WARP), images), w.x, w.pooled, m.tokens, m.width)
        self._launch(
            "classify",
            warps(images * m.classes),
            *(w.pooled, *self._norm, self._head.weights, self._head.bias, w.embedding, w.logits, w.finite),
            *(images, m.width, m.classes),
        )
        if depth:
            self._launch(
                "block_statistics",
                warps(images * depth),
                *(w.activity, w.statistics, images, depth, m.tokens, m.hidden),
            )


def _sizes(tokens: int) -> tuple[int, ...]:
    """Images of each graph, the largest first: powers of two."""
    most = max(1, MOST_TOKENS // tokens)
    return tuple(1 << power for power in reversed(range(most.bit_length())))


def _parts(count: int, sizes: tuple[int, ...]) -> Iterator[int]:
    """A batch as images of one graph after another: 21 are 16, 4 and 1."""
    for size in sizes:
        whole, count = divmod(count, size)
        yield from [size] * whole


def _traffic(weights: NetworkWeights, images: int) -> Traffic:
    """Bytes of one graph: every weight once, what goes into a layer and what comes out, residuals twice."""
    m = weights.measures
    linears = [weights.patch, weights.head]
    for block in weights.blocks:
        linears += [block.qkv, block.out, block.fc1, block.fc2]
    attention = m.qkv_width + m.width
    inputs, outputs = 3 * m.width + m.hidden, m.qkv_width + m.hidden + 4 * m.width
    floats = 2 * m.width + len(weights.blocks) * (attention + inputs + outputs)
    return Traffic(
        weights=sum(linear.weights.nbytes for linear in linears),
        activations=images * m.tokens * (m.patch_pixels + 4 * floats),
    )
