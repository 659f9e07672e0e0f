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

def variants() -> list[Variant]: ...
