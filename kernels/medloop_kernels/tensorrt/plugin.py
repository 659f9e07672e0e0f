"""The ternary linear as a TensorRT plugin (IPluginV3, its Python interface) around the CUDA kernels.

One input, float32 (M, K); three outputs, as `operations.TernaryLinear` says. The steps of the int8 codes live
in the plugin's workspace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorrt as trt

from medloop_kernels.tensorrt.fields import (
    FIELD_TYPES,
    PLUGIN_NAME,
    PLUGIN_VERSION,
    TernaryLinearFields,
    deserialized,
)
from medloop_kernels.tensorrt.gpu import Address, first_gpu
from medloop_kernels.tensorrt.ternary_linear import TernaryLinearOnGpu

NAMESPACE = ""
FLOAT_BYTES = 4
TYPES = (trt.float32, trt.float32, trt.int8, trt.int32)
"""Of the input and the three outputs."""


class TernaryLinearPlugin(
    trt.IPluginV3,  # type: ignore[misc]
    trt.IPluginV3OneCore,  # type: ignore[misc]
    trt.IPluginV3OneBuild,  # type: ignore[misc]
    trt.IPluginV3OneRuntime,  # type: ignore[misc]
):
    """One ternary linear; its weights are brought to the GPU when an engine is ready to run."""

    def __init__(self, fields: TernaryLinearFields) -> None:
        for base in TernaryLinearPlugin.__bases__:
            base.__init__(self)
        self.plugin_name = PLUGIN_NAME
        self.plugin_version = PLUGIN_VERSION
        self.plugin_namespace = NAMESPACE
        self.num_outputs = len(TYPES) - 1
        self.fields = fields
        self._on_gpu: TernaryLinearOnGpu | None = None

    def get_capability_interface(self, _kind: Any) -> TernaryLinearPlugin:
        """All capabilities are in this class."""
        return self

    def clone(self) -> TernaryLinearPlugin:
        """The same weights, not yet on the GPU."""
        return TernaryLinearPlugin(self.fields)

    def get_output_data_types(self, _inputs: Sequence[Any]) -> list[Any]:
        """Of y, codes and finite."""
        return list(TYPES[1:])

    def get_output_shapes(self, inputs: Sequence[Any], _shape_inputs: Any, expressions: Any) -> list[Any]:
        """(M, N), (M, K), (1,)."""
        y, codes, finite = trt.DimsExprs(2), trt.DimsExprs(2), trt.DimsExprs(1)
        y[0], y[1] = inputs[0][0], expressions.constant(self.fields.outputs)
        codes[0], codes[1] = inputs[0][0], inputs[0][1]
        finite[0] = expressions.constant(1)
        return [y, codes, finite]

    def supports_format_combination(self, position: int, tensors: Sequence[Any], _inputs: int) -> bool:
        """Rows in order, in these dtypes alone."""
        described = tensors[position].desc
        return bool(described.format == trt.TensorFormat.LINEAR and described.type == TYPES[position])

    def configure_plugin(self, _inputs: Any, _outputs: Any) -> None:
        """Nothing depends on it."""

    def on_shape_change(self, _inputs: Any, _outputs: Any) -> None:
        """Nothing depends on it."""

    def set_tactic(self, _tactic: int) -> None:
        """There is one."""

    def get_workspace_size(self, inputs: Sequence[Any], _outputs: Any) -> int:
        """A step a token."""
        return FLOAT_BYTES * int(inputs[0].max[0])

    def get_fields_to_serialize(self) -> Any:
        """The weights, as the engine stores them."""
        return plugin_fields(self.fields)

    def attach_to_context(self, _context: Any) -> TernaryLinearPlugin:
        """A clone with its weights on the GPU."""
        attached = self.clone()
        attached._on_gpu = TernaryLinearOnGpu(self.fields, first_gpu())
        return attached

    def enqueue(
        self,
        inputs_described: Sequence[Any],
        _outputs_described: Any,
        inputs: Sequence[int],
        outputs: Sequence[int],
        workspace: int,
        stream: int,
    ) -> None:
        """Put both kernels into the stream."""
        if self._on_gpu is None:
            self._on_gpu = TernaryLinearOnGpu(self.fields, first_gpu())
        y, codes, finite = map(Address, outputs)
        tokens = int(inputs_described[0].dims[0])
        self._on_gpu.enqueue(Address(inputs[0]), (y, codes, finite), Address(workspace), tokens, stream)


class TernaryLinearCreator(trt.IPluginCreatorV3One):  # type: ignore[misc]
    """Makes the plugin from its fields: when a network is built and when an engine is read."""

    def __init__(self) -> None:
        trt.IPluginCreatorV3One.__init__(self)
        self.name = PLUGIN_NAME
        self.plugin_version = PLUGIN_VERSION
        self.plugin_namespace = NAMESPACE
        self.field_names = trt.PluginFieldCollection(
            [
                trt.PluginField(name, np.array([]), getattr(trt.PluginFieldType, kind))
                for name, kind in FIELD_TYPES.items()
            ]
        )

    def create_plugin(self, _name: str, fields: Any, _phase: Any) -> TernaryLinearPlugin:
        """The plugin.

        Raises:
            LayoutError: a field is missing or doesn't fit.
        """
        return TernaryLinearPlugin(deserialized({each.name: np.asarray(each.data) for each in fields}))


def plugin_fields(fields: TernaryLinearFields) -> Any:
    """As TensorRT takes them."""
    return trt.PluginFieldCollection(
        [
            trt.PluginField(each.name, each.data, getattr(trt.PluginFieldType, each.type))
            for each in fields.serialized()
        ]
    )


def register_plugin() -> None:
    """Make the plugin known to TensorRT, once a process."""
    registry = trt.get_plugin_registry()
    if registry.get_creator(PLUGIN_NAME, PLUGIN_VERSION, NAMESPACE) is None:
        registry.register_creator(TernaryLinearCreator(), NAMESPACE)
