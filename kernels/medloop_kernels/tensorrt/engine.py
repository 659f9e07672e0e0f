"""A network on TensorRT: an engine, built for this GPU when the network is compiled, runs image by image."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from medloop_kernels.errors import BackendUnavailable, NonFiniteInput
from medloop_kernels.network import (
    NetworkMeasures,
    NetworkOutput,
    NetworkWeights,
    Traffic,
    require_images,
)
from medloop_kernels.tensorrt.builder import build_engine
from medloop_kernels.tensorrt.description import (
    BLOCKS,
    EMBEDDING,
    FINITE,
    LOGITS,
    NetworkDescription,
    describe_network,
)
from medloop_kernels.tensorrt.gpu import Address, first_gpu
from medloop_kernels.tensorrt.operations import Tensor


def compile_network(weights: NetworkWeights, _threads: int) -> Network:
    """What `Backend.compile` is; the GPU has its own threads.

    Raises:
        ShapeError, LayoutError: a layer doesn't fit.
        BackendUnavailable: TensorRT can't build the network, or the GPU has no memory for it.
    """
    return Network(describe_network(weights), weights.measures)


class Network:
    """A compiled network; see `medloop_kernels.network.CompiledNetwork`.

    Images of a batch go one after the other: the engine is built for one, so that an image's result doesn't
    depend on its batch. Calls from several threads wait for each other.
    """

    def __init__(self, description: NetworkDescription, measures: NetworkMeasures) -> None:
        logger = trt.Logger(trt.Logger.WARNING)
        self._description = description
        self._measures = measures
        self._gpu = first_gpu()
        self._engine = trt.Runtime(logger).deserialize_cuda_engine(build_engine(description, logger))
        context = None if self._engine is None else self._engine.create_execution_context()
        if context is None:
            raise BackendUnavailable("TensorRT can't load its engine: its log says why; choose `cuda`.")
        self._context: Any = context
        self._stream = self._gpu.stream()
        self._addresses: dict[Tensor, Address] = {}
        for tensor in (description.image, *description.outputs):
            self._addresses[tensor] = self._gpu.allocate(tensor.bytes)
            self._context.set_tensor_address(tensor.name, int(self._addresses[tensor]))
        self._images = 0
        self._one_at_a_time = Lock()

    def __call__(self, images: NDArray[np.uint8]) -> NetworkOutput:
        """Logits, embedding and activity of uint8 images (B, H, W, C).

        Raises:
            ShapeError: another dtype, shape or memory order.
            NonFiniteInput: an activation became NaN or infinite.
            BackendUnavailable: the GPU failed.
        """
        require_images(images, self._measures)
        results = {
            tensor.name: np.empty((len(images), *tensor.shape), np.float32)
            for tensor in self._description.outputs
        }
        with self._one_at_a_time:
            self._gpu.enter()
            for index, image in enumerate(images):
                self._run(image, {name: result[index] for name, result in results.items()})
            self._images += len(images)
        logits, embedding = results[LOGITS][:, 0], results[EMBEDDING][:, 0]
        if not (results[FINITE].all() and np.isfinite(embedding).all() and np.isfinite(logits).all()):
            raise NonFiniteInput("an activation is NaN or infinite: the weights of this network are damaged.")
        return NetworkOutput(logits, embedding, results[BLOCKS])

    def _run(self, image: NDArray[np.uint8], results: dict[str, NDArray[np.float32]]) -> None:
        self._gpu.upload(image, self._addresses[self._description.image], self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise BackendUnavailable("TensorRT can't run the engine: its log says why; choose `cuda`.")
        for tensor in self._description.outputs:
            self._gpu.download(self._addresses[tensor], results[tensor.name], self._stream)
        self._gpu.synchronize(self._stream)

    def __del__(self) -> None:
        for address in getattr(self, "_addresses", {}).values():
            self._gpu.free(address)

    @property
    def traffic(self) -> Traffic:
        """Bytes moved since the network was compiled, as `NetworkDescription.traffic` counts them."""
        once = self._description.traffic
        return Traffic(self._images * once.weights, self._images * once.activations)

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights."""
        return self._description.weight_bytes

    @property
    def workspace_bytes(self) -> int:
        """Memory of the activations, as TensorRT plans it."""
        return int(self._engine.device_memory_size_v2)
