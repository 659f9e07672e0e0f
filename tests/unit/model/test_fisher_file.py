from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from medloop_model import pretrained
from medloop_model.checkpoint import ModelPackage, Tensors, digest, load_package, save_package
from medloop_model.errors import CorruptCheckpoint, FisherOfAnotherBase, ModelError, UnfitFisher
from medloop_model.fisher_file import FisherOrigin, load_fisher, save_fisher

MODEL = pretrained.path("phantom")
SHA256 = digest(MODEL)
ORIGIN = FisherOrigin("phantom-1", SHA256, "phantoms", "d" * 64, 64, 0, "medloop fisher phantom")


@pytest.fixture(scope="module")
def base() -> ModelPackage:
    return load_package(MODEL, parts=("latent", "fisher"))


@pytest.fixture
def path(base: ModelPackage, tmp_path: Path) -> Path:
    file = tmp_path / "fisher.safetensors"
    save_fisher(base, base.fisher, ORIGIN, file)
    return file


def test_what_is_written_is_read_again(base: ModelPackage, path: Path) -> None:
    found = load_fisher(path, base, SHA256)
    assert found.keys() == base.latent.keys()
    for name, tensor in base.fisher.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_the_file_says_what_it_was_measured_on(path: Path) -> None:
    assert load_package(path, parts=()).provenance == {
        "base_version": "phantom-1",
        "base_sha256": SHA256,
        "data": "phantoms",
        "data_sha256": "d" * 64,
        "images": 64,
        "seed": 0,
        "command": "medloop fisher phantom",
    }


def test_equal_measurements_give_equal_bytes(base: ModelPackage, path: Path, tmp_path: Path) -> None:
    wider = {name: tensor.astype(np.float32) for name, tensor in reversed(base.fisher.items())}
    assert save_fisher(base, wider, ORIGIN, tmp_path / "again.safetensors") == digest(path)


def test_fisher_of_another_base_is_refused(base: ModelPackage, path: Path) -> None:
    other = "0" * 64
    with pytest.raises(FisherOfAnotherBase, match=f"{SHA256}, not on {other}") as refused:
        load_fisher(path, base, other)
    assert (refused.value.expected, refused.value.found) == (other, SHA256)
    assert refused.value.code == "fisher-of-another-base"


def test_a_model_is_no_fisher_file(base: ModelPackage) -> None:
    with pytest.raises(FisherOfAnotherBase, match="unknown"):
        load_fisher(MODEL, base, SHA256)


def without_head(fisher: Tensors) -> Tensors:
    return {name: tensor for name, tensor in fisher.items() if name != "head.bias"}


def with_a_stranger(fisher: Tensors) -> Tensors:
    return fisher | {"stranger": np.ones(1, np.float16)}


def with_a_class_more(fisher: Tensors) -> Tensors:
    return fisher | {"head.bias": np.ones(3, np.float16)}


def negative(fisher: Tensors) -> Tensors:
    return fisher | {"head.bias": np.array([1, -1], np.float16)}


def no_number(fisher: Tensors) -> Tensors:
    return fisher | {"head.bias": np.array([1, np.nan], np.float16)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_head, "fisher/head.bias is missing"),
        (with_a_stranger, "fisher/stranger is of no weight"),
        (with_a_class_more, r"fisher/head.bias has shape \(3,\), its model's weights \(2,\)"),
        (negative, "fisher/head.bias has values below 0"),
        (no_number, "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    base: ModelPackage, path: Path, change: Callable[[Tensors], Tensors], reason: str
) -> None:
    with pytest.raises(UnfitFisher, match=reason):
        save_fisher(base, change(base.fisher), ORIGIN, path.with_name("never.safetensors"))
    assert not path.with_name("never.safetensors").exists()
    measured = load_package(path, parts=("fisher",))
    save_package(replace(measured, fisher=change(measured.fisher)), path)
    with pytest.raises(UnfitFisher, match=reason) as refused:
        load_fisher(path, base, SHA256)
    assert refused.value.code == "unfit-fisher"


@pytest.mark.parametrize("size", [0, 4, 1000, 100_000])
def test_a_file_cut_short_is_refused(base: ModelPackage, path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptCheckpoint):
        load_fisher(path, base, SHA256)


def test_a_missing_file_is_a_known_error(base: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        load_fisher(tmp_path / "nowhere.safetensors", base, SHA256)
