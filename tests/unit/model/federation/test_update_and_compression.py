from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medloop_model import pretrained
from medloop_model.checkpoint import ModelPackage, load_package
from medloop_model.errors import ShapeError
from medloop_model.federation.compression import (
    GROUP,
    compress,
    decompress,
    dequantise,
    dequantise_root,
    largest_payload,
    pack_bits,
    quantise,
    quantise_root,
    unpack_bits,
)
from medloop_model.federation.errors import CorruptUpdate, OversizeUpdate
from medloop_model.federation.update import Update, difference, shared, shared_digest, stays_at_home
from safetensors.numpy import load, save

BASE = "ab" * 32
LIKE = {"b.weight": np.zeros((40, 30)), "a.bias": np.zeros(7)}

numbers = st.floats(-60_000, 60_000, width=32)
vectors = st.integers(1, 700).flatmap(lambda length: arrays(np.float32, length, elements=numbers))


def drawn(seed: int, scale: float = 1e-3, samples: int = 5) -> Update:
    draw = np.random.default_rng(seed)
    deltas = {name: draw.normal(0, scale, like.shape).astype(np.float32) for name, like in LIKE.items()}
    fisher = {name: draw.exponential(1, like.shape).astype(np.float32) for name, like in LIKE.items()}
    return Update(BASE, samples, deltas, fisher)


@pytest.fixture(scope="module")
def home() -> ModelPackage:
    return load_package(pretrained.path("pneumonia"), parts=("latent", "fisher"))


def trained(home: ModelPackage, seed: int = 0) -> ModelPackage:
    """A model whose every weight has moved."""
    draw = np.random.default_rng(seed)
    latent = {
        name: (tensor + draw.normal(0, 1e-2, tensor.shape)).astype(np.float16)
        for name, tensor in home.latent.items()
    }
    return replace(home, latent=latent)


def test_norms_and_scales_stay_at_home(home: ModelPackage) -> None:
    kept = {name for name in home.latent if stays_at_home(name)}
    assert {"norm.weight", "norm.bias", "blocks.0.fc1.gain", "blocks.3.qkv.norm"} <= kept
    assert kept.isdisjoint(
        {"head.weight", "patch.weight", "position", "blocks.0.fc1.weight", "blocks.0.fc1.bias"}
    )
    assert set(shared(home.latent)) == set(home.latent) - kept
    assert set(shared(home.latent, norms=True)) == set(home.latent)


def test_an_update_is_what_training_changed(home: ModelPackage) -> None:
    after = trained(home)
    update = difference(home, after, samples=64)
    for name, delta in update.deltas.items():
        np.testing.assert_array_equal(delta, after.latent[name].astype(np.float32) - home.latent[name])
    assert update.base_sha256 == shared_digest(home.latent)
    assert set(update.fisher) == set(update.deltas)
    flat = np.concatenate([delta.ravel() for delta in update.deltas.values()]).astype(np.float64)
    assert update.norm == pytest.approx(float(np.linalg.norm(flat)))


def test_two_sites_that_differ_in_norms_alone_have_one_base(home: ModelPackage) -> None:
    moved = {**home.latent, "norm.weight": home.latent["norm.weight"] * np.float16(2)}
    assert shared_digest(moved) == shared_digest(home.latent)
    assert shared_digest(moved, norms=True) != shared_digest(home.latent, norms=True)
    turned = {**home.latent, "head.bias": -home.latent["head.bias"]}
    assert shared_digest(turned) != shared_digest(home.latent)


def test_a_new_class_and_a_number_that_is_none_are_refused(home: ModelPackage) -> None:
    wider = {**home.latent, "head.bias": np.zeros(3, np.float16)}
    with pytest.raises(ShapeError, match=r"head\.bias is \(3,\)"):
        difference(home, replace(home, latent=wider), samples=1)
    broken = {**home.latent, "head.bias": np.full(2, np.nan, np.float16)}
    with pytest.raises(CorruptUpdate, match=r"delta of head\.bias"):
        difference(home, replace(home, latent=broken), samples=1)
    lacking = {name: tensor for name, tensor in home.latent.items() if name != "position"}
    with pytest.raises(ShapeError, match="position"):
        difference(home, replace(home, latent=lacking), samples=1)


def test_a_long_update_is_clipped_in_its_direction() -> None:
    update = drawn(1)
    short = update.clipped(update.norm / 4)
    assert short.norm == pytest.approx(update.norm / 4, rel=1e-5)
    ratio = short.deltas["b.weight"] / update.deltas["b.weight"]
    assert np.ptp(ratio) < 1e-6
    assert update.clipped(update.norm) is update


def test_an_update_is_less_than_an_eighth_of_float32(home: ModelPackage) -> None:
    update = difference(home, trained(home), samples=64)
    numbers = sum(delta.size for delta in update.deltas.values())
    without = len(compress(replace(update, fisher={})).payload)
    both = len(compress(update).payload)
    assert without <= 4 * numbers / 8
    assert both <= 2 * 4 * numbers / 8
    assert both <= largest_payload(numbers)


@given(values=vectors)
def test_rounding_is_off_by_half_a_step_at_most(values: np.ndarray) -> None:
    steps, codes = quantise(values)
    off = np.abs(dequantise(steps, codes).astype(np.float64) - values)
    largest = np.repeat(
        [np.abs(part).max() for part in np.split(values, range(GROUP, len(values), GROUP))], GROUP
    )
    assert (off <= largest[: len(values)] / 6 * (1 + 1e-5) + 1e-37).all()


@given(values=vectors.map(np.abs))
def test_the_root_of_fisher_information_is_off_by_half_a_step_at_most(values: np.ndarray) -> None:
    steps, codes = quantise_root(values)
    off = np.abs(
        np.sqrt(dequantise_root(steps, codes).astype(np.float64)) - np.sqrt(values.astype(np.float64))
    )
    largest = np.repeat([part.max() for part in np.split(values, range(GROUP, len(values), GROUP))], GROUP)
    assert (off <= np.sqrt(largest[: len(values)]) / 14 * (1 + 1e-5) + 1e-18).all()


@given(codes=st.integers(0, 500).flatmap(lambda length: arrays(np.uint8, length, elements=st.integers(0, 7))))
def test_packed_codes_come_back(codes: np.ndarray) -> None:
    packed = pack_bits(codes)
    assert len(packed) == -(-3 * len(codes) // 8)
    np.testing.assert_array_equal(unpack_bits(packed, len(codes)), codes)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_decoded_and_what_stays_behind_make_up_the_update(seed: int) -> None:
    update = drawn(seed)
    packed = compress(update)
    said = decompress(packed.payload, LIKE)
    assert (said.base_sha256, said.samples) == (update.base_sha256, update.samples)
    for name, delta in update.deltas.items():
        np.testing.assert_allclose(said.deltas[name] + packed.residual[name], delta, atol=1e-9)
    assert compress(update).payload == packed.payload


def test_what_rounding_lost_is_said_later() -> None:
    """A movement too small for one step of its group arrives within a few rounds."""
    small = np.full(GROUP, 0.1, np.float32)
    small[0] = 3.0  # a step is 1
    update = Update(BASE, 1, {"a": small})
    arrived, residual = np.zeros(GROUP), None
    for _ in range(20):
        packed = compress(update, residual)
        arrived += decompress(packed.payload, {"a": small}).deltas["a"]
        residual = packed.residual
    np.testing.assert_allclose(arrived / 20, small, atol=0.06)
    alone = decompress(compress(update).payload, {"a": small}).deltas["a"]
    assert alone[1] == 0


def test_a_residual_of_another_model_is_refused() -> None:
    with pytest.raises(ShapeError, match="residual"):
        compress(drawn(0), {"a.bias": np.zeros(7, np.float32)})


def test_an_update_of_another_model_is_refused() -> None:
    payload = compress(drawn(0)).payload
    with pytest.raises(ShapeError, match="another model"):
        decompress(payload, {"b.weight": np.zeros((40, 31)), "a.bias": np.zeros(7)})


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(OversizeUpdate, match="has at most"):
        decompress(b"x" * 10_000, LIKE)


@pytest.mark.parametrize(
    ("name", "shape"), [("delta.steps", (10, 1)), ("fisher.codes", (1, 453)), ("delta.codes", ())]
)
def test_steps_and_codes_have_one_axis(name: str, shape: tuple[int, ...]) -> None:
    """A second one would be spread over all groups, and take memory that grows as their square."""
    value = np.resize(load(compress(drawn(0)).payload)[name], shape)
    with pytest.raises(ShapeError, match="not of 1207 numbers"):
        decompress(changed(name, value), LIKE)


def changed(name: str, value: np.ndarray | None) -> bytes:
    tensors = load(compress(drawn(0)).payload)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    return save(tensors)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x80\x04pickle",
        compress(drawn(0)).payload[:-1],
        changed("samples", None),
        changed("samples", np.array([0], np.int64)),
        changed("samples", np.array([1, 2], np.int64)),
        changed("samples", np.array([np.nan])),
        changed("samples", np.array([1.5])),
        changed("delta.steps", np.full(10, np.nan, np.float32)),
        changed("delta.steps", np.full(10, -1, np.float32)),
        changed("delta.steps", np.full(10, 3e38, np.float32)),
        changed("delta.steps", np.full(10, 1, np.float64)),
        changed("fisher.steps", np.full(10, np.inf, np.float32)),
    ],
)
def test_what_is_no_update_is_refused(payload: bytes) -> None:
    with pytest.raises(CorruptUpdate):
        decompress(payload, LIKE)


def test_a_number_that_is_none_is_never_sent() -> None:
    update = drawn(0)
    update.deltas["a.bias"][3] = np.inf
    with pytest.raises(CorruptUpdate, match=r"delta of a\.bias"):
        compress(update)
