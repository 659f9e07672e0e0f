"""The whole network as TensorRT's layers: shapes chain, weights are whole, results are the CPU's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from described_network import run_description
from medloop_kernels import LayoutError, LinearWeights, NetworkWeights, ShapeError, pack, select, unpack
from medloop_kernels.tensorrt.description import NetworkDescription, describe_network
from medloop_kernels.tensorrt.operations import Constant, TernaryLinear
from medloop_model.architecture import Architecture, paper, ward
from medloop_model.checkpoint import ModelPackage
from medloop_model.network import BiTMedViT
from medloop_model.packed_layers import read_network
from medloop_model.training.export import export_package

CLASSES = ("normal", "opacity", "other")
PRESETS = {"ward": ward(28, 1, CLASSES), "paper": paper(3, CLASSES)}
# Sums in another order than the compiled network's; logits are of order 1.
ROUNDINGS = 5e-5
ONE_CODE = 0.02  # a value that took the other of two neighbouring codes
SOME_CODES = 1e-3  # of the 6 million in the paper's network, some do in every image


def package_of(architecture: Architecture) -> ModelPackage:
    return export_package(BiTMedViT(architecture, seed=3), {})


def weights_of(architecture: Architecture) -> NetworkWeights:
    return read_network(package_of(architecture).packed, architecture).weights()


@pytest.fixture(scope="module", params=PRESETS)
def preset(request: pytest.FixtureRequest) -> Architecture:
    return PRESETS[request.param]


def errors(weights: NetworkWeights, images: int) -> dict[str, np.ndarray]:
    """Largest difference to the compiled network an image, by output."""
    measures = weights.measures
    shape = (images, measures.image_size, measures.image_size, measures.channels)
    pixels = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    expected = select("cpu").compile(weights, 1)(pixels)
    ours = [run_description(describe_network(weights), image) for image in pixels]
    assert all(each["finite"] == 1 for each in ours)
    return {
        name: np.array(
            [np.abs(each[name] - getattr(expected, name)[index]).max() for index, each in enumerate(ours)]
        )
        for name in ("logits", "embedding", "blocks")
    }


def test_a_described_network_computes_what_the_compiled_one_does(preset):
    small = preset is PRESETS["ward"]
    for error in errors(weights_of(preset), images=8 if small else 1).values():
        assert np.median(error) < (ROUNDINGS if small else SOME_CODES)
        assert error.max() < ONE_CODE


@pytest.mark.parametrize("key_heads", [2, 4])
def test_query_heads_share_key_heads_in_order(key_heads):
    weights = weights_of(replace(PRESETS["ward"], heads=4))
    measures = replace(weights.measures, key_heads=key_heads)
    outputs = measures.width + 2 * key_heads * measures.width // measures.heads
    generator = np.random.default_rng(0)
    codes = generator.integers(-1, 2, (outputs, measures.width), dtype=np.int8)
    scale = np.full(outputs, 0.1, np.float32)
    bias = generator.standard_normal(outputs).astype(np.float32)
    norm = np.ones(measures.width, np.float32)
    qkv = LinearWeights(pack(codes), measures.width, bias, scale, norm)
    blocks = tuple(replace(block, qkv=qkv) for block in weights.blocks)
    for error in errors(replace(weights, measures=measures, blocks=blocks), images=8).values():
        assert np.median(error) < ROUNDINGS


def test_shapes_chain_from_the_image_to_the_logits(preset):
    description = describe_network(weights_of(preset))
    known = {description.image}
    for layer in description.layers:
        assert set(layer.inputs) <= known, "a layer reads what is there already"
        made = [(tensor.shape, tensor.dtype) for tensor in layer.outputs]
        assert layer.operation.outputs(layer.inputs) == made
        assert not known & set(layer.outputs)
        known |= set(layer.outputs)
    assert max(Counter(tensor.name for tensor in known).values()) == 1
    assert set(description.outputs) <= known
    size, depth = preset.image_size, preset.depth
    assert (description.image.shape, description.image.dtype) == ((size, size, preset.channels), "uint8")
    assert {tensor.name: tensor.shape for tensor in description.outputs} == {
        "logits": (1, 3),
        "embedding": (1, preset.width),
        "blocks": (depth, 4),
        "finite": (1,),
    }
    assert {tensor.dtype for tensor in description.outputs} == {"float32"}
    tensors = {tensor.name: tensor for tensor in known}
    assert tensors["embedded"].shape == (preset.tokens, preset.width)
    assert tensors["blocks.0.fc1"].shape == (preset.tokens, preset.mlp_ratio * preset.width)
    codes = tensors["blocks.0.fc2.1"]
    assert (codes.shape, codes.dtype) == (tensors["blocks.0.fc1"].shape, "int8")


@pytest.mark.parametrize(("name", "linears"), [("ward", 4 * 4), ("paper", 2 * 3)])
def test_what_is_ternary_is_a_plugin(name, linears):
    description = describe_network(weights_of(PRESETS[name]))
    plugins = [layer for layer in description.layers if isinstance(layer.operation, TernaryLinear)]
    assert len(plugins) == linears
    fields = {layer.outputs[0].name: layer.operation.fields for layer in plugins}
    assert [each for each, of in fields.items() if of.gelu] == [
        f"blocks.{index}.fc1" for index in range(PRESETS[name].depth)
    ]


def test_weights_are_the_packages_bytes_and_a_few_numbers(preset):
    package = package_of(preset)
    description = describe_network(read_network(package.packed, preset).weights())
    numbers = sum(
        layer.operation.values.size == 1
        for layer in description.layers
        if isinstance(layer.operation, Constant)
    )
    assert description.weight_bytes == sum(each.nbytes for each in package.packed.values()) + 4 * numbers
    fc2 = plugin_of(description, "blocks.1.fc2")
    assert fc2.packed.tobytes() == package.packed["blocks.1.fc2.codes"].tobytes()
    assert fc2.scale.tobytes() == package.packed["blocks.1.fc2.scale"].tobytes()


def plugin_of(description: NetworkDescription, name: str):
    (operation,) = [layer.operation for layer in description.layers if layer.outputs[0].name == name]
    return operation.fields


def test_traffic_counts_every_layers_inputs_and_outputs():
    description = describe_network(weights_of(PRESETS["ward"]))
    read = sum(
        tensor.bytes
        for layer in description.layers
        for tensor in layer.inputs
        if not tensor.name.endswith((".by", ".weight", "position"))
    )
    written = sum(
        tensor.bytes
        for layer in description.layers
        for tensor in layer.outputs
        if not isinstance(layer.operation, Constant)
    )
    assert description.traffic.activations == read + written
    assert description.traffic.weights == description.weight_bytes


@pytest.mark.parametrize("layer", ["qkv", "out", "fc1"])
def test_a_value_that_is_infinite_is_flagged(layer):
    weights = weights_of(PRESETS["ward"])
    old = getattr(weights.blocks[2], layer)
    bad = replace(old, bias=np.full(len(old.bias), np.inf, np.float32))
    blocks = list(weights.blocks)
    blocks[2] = replace(blocks[2], **{layer: bad})
    image = np.zeros((28, 28, 1), np.uint8)
    with np.errstate(all="ignore"):
        output = run_description(describe_network(replace(weights, blocks=tuple(blocks))), image)
    assert output["finite"] == 0


def as_int8(linear: LinearWeights) -> LinearWeights:
    return replace(linear, weights=unpack(linear.weights, linear.inputs))


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (as_int8, LayoutError, "96 inputs take uint8"),
        (lambda fc1: replace(fc1, scale=None, weights=np.zeros((192, 96), np.float32)),
         ShapeError, "the plugin takes ternary weights with a scale"),
        (lambda fc1: replace(fc1, inputs=300), ShapeError, "block 0's fc1 has 192 outputs and 300 inputs"),
        (lambda fc1: replace(fc1, norm=None), ShapeError, "block 0's fc1 needs a norm"),
        (lambda fc1: replace(fc1, scale=None), ShapeError, "block 0's fc1 needs a scale"),
        (lambda fc1: replace(fc1, bias=fc1.bias[1:]), ShapeError, r"fc1's bias must be float32 \(192,\)"),
        (lambda fc1: replace(fc1, weights=fc1.weights[:, :16]), LayoutError, "96 inputs take uint8"),
    ],
    ids=["int8", "full", "inputs", "norm", "scale", "bias", "packed"],
)  # fmt: skip
def test_linears_that_are_not_ternary_or_do_not_fit_are_refused(change, error, sentence):
    weights = weights_of(PRESETS["ward"])
    first = weights.blocks[0]
    blocks = (replace(first, fc1=change(first.fc1)), *weights.blocks[1:])
    with pytest.raises(error, match=sentence):
        describe_network(replace(weights, blocks=blocks))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"position": np.zeros((48, 96), np.float32)}, "position must be float32"),
        ({"norm_weight": np.zeros(95, np.float32)}, "norm_weight must be float32"),
    ],
)
def test_weights_that_do_not_fit_the_measures_are_refused(change, sentence):
    with pytest.raises(ShapeError, match=sentence):
        describe_network(replace(weights_of(PRESETS["ward"]), **change))
