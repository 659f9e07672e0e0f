"""A ternary linear on the GPU: its weights lie there, and its two kernels run in the order of a stream."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from medloop_kernels.cuda.kernels import WARPS, Finish, blocks_of, tiles, warps
from medloop_kernels.cuda.operations import FEW_TOKENS
from medloop_kernels.tensorrt.fields import TernaryLinearFields
from medloop_kernels.tensorrt.gpu import Address, Gpu

DEFAULT_STREAM = 0


class TernaryLinearOnGpu:
    """`reference.quantize`, then `reference.ternary_linear`.

    Args:
        fields: the weights.
        gpu: where they go.

    Raises:
        BackendUnavailable: the kernels aren't compiled for this GPU, or it has no memory left.
    """

    def __init__(self, fields: TernaryLinearFields, gpu: Gpu) -> None:
        self._gpu = gpu
        self._fields = fields
        self._quantize = gpu.function("quantize", "quantize")
        self._tiles = gpu.function("ternary_linear", "ternary_linear")
        self._row = gpu.function("ternary_linear", "ternary_linear_row")
        self._weights: list[Address] = []
        arrays: list[NDArray[Any]] = [fields.norm, fields.packed, fields.scale, fields.bias]
        for array in arrays:
            self._weights.append(gpu.allocate(array.nbytes))
            gpu.upload(array, self._weights[-1], DEFAULT_STREAM)
        gpu.synchronize(DEFAULT_STREAM)

    def enqueue(
        self, x: Address, outputs: tuple[Address, Address, Address], step: Address, tokens: int, stream: int
    ) -> None:
        """Put both kernels into a stream.

        Args:
            x: float32 (M, K).
            outputs: y, float32 (M, N); codes, int8 (M, K); finite, int32 (1,), 0 if a value of the normalised
                input is NaN or infinite, else 1.
            step: float32 (M,), written and read.
            tokens: M, at least 1.
            stream: of the GPU.
        """
        y, codes, finite = outputs
        norm, packed, scale, bias = self._weights
        columns, rows = self._fields.inputs, self._fields.outputs
        self._gpu.set_word(finite, 1, stream)
        quantized = (x, norm, codes, step, finite, tokens, columns)
        self._gpu.launch(self._quantize, warps(tokens), quantized, stream)
        few = tokens <= FEW_TOKENS
        grid = (blocks_of(rows, WARPS), tokens) if few else tiles(tokens, rows)
        finish = Finish.GELU if self._fields.gelu else Finish.STORE
        operands = (codes, step, packed, scale, bias, y, tokens, columns, rows, finish)
        self._gpu.launch(self._row if few else self._tiles, grid, operands, stream)

    def __del__(self) -> None:
        for address in getattr(self, "_weights", ()):
            self._gpu.free(address)
