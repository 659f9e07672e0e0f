"""Runs a packed model on the kernels, without torch: what a device installs.

Where the back end compiles whole networks (the C++ kernels), a batch is one call into it. Where it has single
operations only (the numpy reference), `stepwise.py` runs the network layer by layer: the readable truth that
the compiled network is compared with. They differ where float32 sums run in another order, and where a value
within a rounding error of two int8 codes takes the other one.

An image's result does not depend on the batch it comes in, bit for bit, nor on the number of threads, so that
a stream processed again after a crash gives the same predictions.
"""

from __future__ import annotations

import numpy as np
from medloop_kernels import (
    Backend,
    CompiledNetwork,
    NetworkOutput,
    NonFiniteInput,
    select,
    threads,
)
from numpy.typing import NDArray

from medloop_model.architecture import Architecture
from medloop_model.checkpoint import ModelPackage
from medloop_model.fitting import fitting_images
from medloop_model.packed_layers import PackedNetwork, read_network
from medloop_model.stepwise import run_stepwise

EngineOutput = NetworkOutput
BLOCK_STATISTICS = ("mean", "spread", "saturated", "dead")


class Engine:
    """A packed model, ready to run.

    Args:
        package: a package whose `packed` part is loaded.
        backend: kernels to run on; by default what `medloop_kernels.select` chooses.

    Raises:
        UnsupportedArchitecture: a packed tensor is missing, doesn't fit, or is damaged.
        BackendUnavailable: the chosen kernels can't run here.
        InvalidThreads: MEDLOOP_KERNELS_THREADS is no number of threads.
    """

    def __init__(self, package: ModelPackage, backend: Backend | None = None) -> None:
        self.architecture: Architecture = package.architecture
        self.kernels = backend or select()
        self.layers: PackedNetwork = read_network(package.packed, self.architecture)
        self.compiled: CompiledNetwork | None = None
        if self.kernels.compile is not None:
            self.compiled = self.kernels.compile(self.layers.weights(), threads())

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each logit, in order."""
        return self.architecture.classes

    def __call__(self, images: NDArray[np.uint8]) -> EngineOutput:
        """Classify a batch.

        Args:
            images: uint8 (B, H, W, C); a grey model also takes (B, H, W). Of any memory order.

        Raises:
            ShapeError: the images don't fit the network.
            NonFiniteInput: an activation became NaN or infinite; the weights are damaged.
        """
        images_BHWC = fitting_images(images, self.architecture)
        if self.compiled is not None:
            return self.compiled(images_BHWC)
        output = run_stepwise(self.layers, images_BHWC, self.kernels)
        if not (np.isfinite(output.embedding).all() and np.isfinite(output.logits).all()):
            raise NonFiniteInput("an activation is NaN or infinite: the weights of this network are damaged.")
        return output
