"""The engine against the torch network, over architectures, back ends and batch sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_kernels import available, select
from medloop_model.architecture import Architecture, paper, ward
from medloop_model.checkpoint import ModelPackage, load_package, save_package
from medloop_model.engine import Engine
from medloop_model.errors import ShapeError, UnsupportedArchitecture
from medloop_model.network import BiTMedViT
from medloop_model.training.export import export_package, network_from
from torch.nn import functional

# Engine and torch sum float32 in different orders, so an activation that lies within 1e-6 of the border
# between two int8 codes may take the other one: a relative change of 1/127 in one of a token's inputs.
# A handful of such codes in an image moves a logit of order 1 by thousandths.
LOGIT_TOLERANCE = 0.02
# Without a border nearby, only the float32 roundings of some forty operations remain.
ROUNDING_TOLERANCE = 2e-5
# A share moves by one code of some ten thousand, or one channel of the narrowest network's 99.
STATISTICS_TOLERANCE = 0.011

ARCHITECTURES = {
    "ward-28-grey": ward(28, 1, ("normal", "opacity")),
    "ward-64-colour": ward(64, 3, tuple("abcdef")),
    "full-attention": Architecture(
        image_size=21,
        channels=3,
        patch_size=7,
        width=32,
        depth=2,
        heads=2,
        mlp_ratio=4,
        classes=("a", "b", "c"),
        ternary_attention=False,
    ),
    "all-ternary": ward(28, 1, ("normal", "opacity")).all_ternary(),
    "odd-measures": Architecture(
        image_size=15, channels=1, patch_size=5, width=33, depth=1, heads=3, mlp_ratio=3, classes=("a", "b")
    ),
}


def package_of(architecture: Architecture) -> ModelPackage:
    """A network with random weights whose biases, gains and norms are not the identity."""
    network = BiTMedViT(architecture, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return export_package(network, {})


def images_for(architecture: Architecture, count: int, seed: int = 0):
    size = architecture.image_size
    shape = (count, size, size, architecture.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def package(request) -> ModelPackage:
    return package_of(ARCHITECTURES[request.param])


def test_the_published_network_all_ternary_is_a_file_of_two_and_a_half_megabytes(tmp_path):
    package = export_package(BiTMedViT(paper(3, ("normal", "opacity")).all_ternary()), {})
    served = tmp_path / "served.safetensors"
    save_package(replace(package, latent={}), served)
    assert served.stat().st_size <= 2_600_000
    assert Engine(load_package(served)).classes == ("normal", "opacity")


@pytest.fixture(scope="module")
def grey_package() -> ModelPackage:
    return package_of(ARCHITECTURES["ward-28-grey"])


@torch.no_grad()
def torch_run(package: ModelPackage, images):
    network = network_from(package)
    pixels = torch.from_numpy(images.astype(np.float32) / np.float32(255))
    return network(pixels).numpy(), network.embed(pixels).numpy()


@pytest.mark.parametrize("backend", available(), ids=lambda backend: f"{backend.name}-{backend.variant}")
def test_engine_agrees_with_torch(package, backend):
    images = images_for(package.architecture, 24)
    logits, embedding = torch_run(package, images)
    output = Engine(package, backend)(images)
    np.testing.assert_allclose(output.logits, logits, atol=LOGIT_TOLERANCE)
    np.testing.assert_allclose(output.embedding, embedding, atol=4 * LOGIT_TOLERANCE)
    assert np.median(np.abs(output.logits - logits)) < LOGIT_TOLERANCE / 10
    margin = np.sort(logits, axis=1)
    clear = margin[:, -1] - margin[:, -2] > 2 * LOGIT_TOLERANCE
    assert clear.sum() > 12
    np.testing.assert_array_equal(output.logits.argmax(1)[clear], logits.argmax(1)[clear])


def test_back_ends_agree_with_each_other(package):
    images = images_for(package.architecture, 12)
    outputs = [Engine(package, backend)(images) for backend in available()]
    for output in outputs[1:]:
        np.testing.assert_allclose(output.logits, outputs[0].logits, atol=LOGIT_TOLERANCE)
        np.testing.assert_allclose(output.blocks, outputs[0].blocks, atol=STATISTICS_TOLERANCE)
        # In a part of the images no code lies on a border, and then only roundings remain.
        assert np.quantile(np.abs(output.logits - outputs[0].logits), 0.25) < ROUNDING_TOLERANCE


def test_instruction_sets_give_the_same_bits(package):
    images = images_for(package.architecture, 4)
    outputs = [Engine(package, backend)(images) for backend in available() if backend.name == "cpu"]
    for output in outputs[1:]:
        np.testing.assert_array_equal(output.logits, outputs[0].logits)
        np.testing.assert_array_equal(output.blocks, outputs[0].blocks)


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(0, 20), max_size=6))
def test_an_image_gives_the_same_bits_in_any_batch(grey_package, cuts):
    images = images_for(grey_package.architecture, 20)
    engine = Engine(grey_package)
    whole = engine(images)
    parts = [engine(part) for part in np.split(images, sorted(cuts))]
    for name in ("logits", "embedding", "blocks"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))


def test_splitting_the_attention_changes_nothing(grey_package, monkeypatch):
    images = images_for(grey_package.architecture, 5)
    whole = Engine(grey_package, select("reference"))(images)
    monkeypatch.setattr("medloop_model.stepwise._SCORES_AT_ONCE", 1)
    split = Engine(grey_package, select("reference"))(images)
    np.testing.assert_array_equal(split.logits, whole.logits)


def test_block_statistics_are_those_of_the_input_of_fc2(package):
    images = images_for(package.architecture, 3)
    network = network_from(package)
    hidden = []
    for block in network.blocks:
        block.fc2.register_forward_pre_hook(lambda layer, arguments: hidden.append((layer, arguments[0])))
    with torch.no_grad():
        network(torch.from_numpy(images.astype(np.float32) / np.float32(255)))
    output = Engine(package)(images)
    assert output.blocks.shape == (3, package.architecture.depth, 4)
    for index, (layer, x_BTI) in enumerate(hidden):
        mean, spread, saturated, dead = output.blocks[:, index].T
        np.testing.assert_allclose(mean, x_BTI.mean(dim=(1, 2)), atol=1e-3)
        np.testing.assert_allclose(spread, x_BTI.std(dim=(1, 2), correction=0), atol=1e-3)
        normed = functional.rms_norm(x_BTI, layer.norm.shape, layer.norm.detach(), 1e-5)
        codes = (normed * (127 / normed.abs().amax(dim=-1, keepdim=True))).round()
        np.testing.assert_allclose(saturated, (codes.abs() == 127).float().mean(dim=(1, 2)), atol=2e-3)
        np.testing.assert_allclose(dead, (codes == 0).all(dim=1).float().mean(dim=1), atol=2e-2)


def test_a_dead_channel_is_counted(grey_package):
    packed = dict(grey_package.packed)
    norm = packed["blocks.0.fc2.norm"].copy()
    norm[:48] = 0
    output = Engine(replace(grey_package, packed=packed | {"blocks.0.fc2.norm": norm}))(
        images_for(grey_package.architecture, 2)
    )
    assert (output.blocks[:, 0, 3] >= 48 / len(norm)).all()


def test_a_grey_model_takes_images_with_and_without_a_channel_axis(grey_package):
    images = images_for(grey_package.architecture, 2)
    engine = Engine(grey_package)
    np.testing.assert_array_equal(engine(images[..., 0]).logits, engine(images).logits)


def test_no_images_give_no_results(package):
    output = Engine(package)(images_for(package.architecture, 0))
    assert output.logits.shape == (0, len(package.architecture.classes))
    assert output.embedding.shape == (0, package.architecture.width)
    assert output.blocks.shape == (0, package.architecture.depth, 4)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32), dtype=np.uint8),
        np.zeros((2, 28, 28, 3), dtype=np.uint8),
        np.zeros((28, 28), dtype=np.uint8),
        np.zeros((2, 28, 28), dtype=np.float32),
    ],
    ids=["size", "colour", "no-batch", "dtype"],
)
def test_images_that_do_not_fit_are_refused(grey_package, images):
    with pytest.raises(ShapeError, match=r"uint8 images \(batch, 28, 28, 1\)"):
        Engine(grey_package)(images)


def damaged(tensor):
    bad = tensor.copy()
    bad.flat[0] = 0xFF if bad.dtype == np.uint8 else np.nan
    return bad


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("head.bias", None, "head.bias is missing"),
        ("blocks.3.fc2.codes", None, "blocks.3.fc2.codes is missing"),
        ("position", lambda tensor: tensor[:-1], r"position must be float32 \(49, 96\)"),
        ("norm.weight", lambda tensor: tensor.astype(np.float64), "not float64"),
        ("blocks.0.qkv.codes", lambda tensor: tensor[:-1], "has 159 rows, not 160"),
        ("blocks.1.fc2.codes", lambda tensor: tensor[:, :32], "belongs to another layer"),
        ("blocks.2.out.codes", damaged, "damaged"),
        ("blocks.2.out.scale", damaged, "NaN or an infinity"),
    ],
)
def test_a_package_that_cannot_run_is_refused(grey_package, name, change, sentence):
    packed = dict(grey_package.packed)
    tensor = packed.pop(name)
    if change is not None:
        packed[name] = change(tensor)
    with pytest.raises(UnsupportedArchitecture, match=sentence):
        Engine(replace(grey_package, packed=packed))
