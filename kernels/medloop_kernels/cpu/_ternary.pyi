import numpy as np
from numpy.typing import NDArray

class Variant:
    @property
    def name(self) -> str: ...
    def quantize(
        self,
        x: NDArray[np.float32],
        norm_weight: NDArray[np.float32],
        codes: NDArray[np.int8],
        step: NDArray[np.float32],
    ) -> bool: ...
    def ternary_matmul(
        self, codes: NDArray[np.int8], packed: NDArray[np.uint8], sums: NDArray[np.int32]
    ) -> None: ...
    def ternary_linear(
        self,
        codes: NDArray[np.int8],
        step: NDArray[np.float32],
        packed: NDArray[np.uint8],
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        gelu: bool,
        y: NDArray[np.float32],
    ) -> None: ...
    def fake_quantize(
        self,
        x: NDArray[np.float32],
        norm_weight: NDArray[np.float32],
        rounded: NDArray[np.float32],
        inverse: NDArray[np.float32],
    ) -> None: ...
    def fake_quantize_backward(
        self,
        gradient: NDArray[np.float32],
        x: NDArray[np.float32],
        inverse: NDArray[np.float32],
        norm_weight: NDArray[np.float32],
        x_gradient: NDArray[np.float32],
        norm_gradient: NDArray[np.float32],
    ) -> None: ...
    def ternarize(
        self,
        weight: NDArray[np.float32],
        gain: NDArray[np.float32],
        ternary: NDArray[np.float32],
        gained: NDArray[np.float32],
    ) -> None: ...
    def ternarize_backward(
        self,
        gradient: NDArray[np.float32],
        ternary: NDArray[np.float32],
        gain: NDArray[np.float32],
        weight_gradient: NDArray[np.float32],
        gain_gradient: NDArray[np.float32],
    ) -> None: ...
    def peak(self) -> tuple[float, float]: ...
    def time_product(self, layer: Layer, tokens: int, rounds: int) -> float: ...

class Layer:
    @staticmethod
    def ternary(
        packed: NDArray[np.uint8],
        inputs: int,
        norm: NDArray[np.float32] | None,
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
    ) -> Layer: ...
    @staticmethod
    def int8(
        weights: NDArray[np.int8],
        norm: NDArray[np.float32] | None,
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
    ) -> Layer: ...
    @staticmethod
    def full(
        weights: NDArray[np.float32], norm: NDArray[np.float32] | None, bias: NDArray[np.float32]
    ) -> Layer: ...

class Network:
    def __init__(
        self,
        variant: Variant,
        measures: tuple[int, int, int, int, int, int, int, int],
        layers: list[Layer],
        position: NDArray[np.float32],
        norm_weight: NDArray[np.float32],
        norm_bias: NDArray[np.float32],
        threads: int,
    ) -> None: ...
    def run(
        self,
        images: NDArray[np.uint8],
        logits: NDArray[np.float32],
        embedding: NDArray[np.float32],
        statistics: NDArray[np.float32],
    ) -> bool: ...
    @property
    def traffic(self) -> tuple[int, int]: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...

def variants() -> list[Variant]: ...
