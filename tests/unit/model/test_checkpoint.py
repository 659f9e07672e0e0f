from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from medloop_model.architecture import ward
from medloop_model.checkpoint import (
    ModelPackage,
    digest,
    load_package,
    load_teacher,
    save_package,
    save_teacher,
)
from medloop_model.errors import CorruptCheckpoint, DigestMismatch, PickledCheckpoint
from safetensors.numpy import load_file, save_file

ARCHITECTURE = ward(28, 1, ("normal", "pneumonia"))


def a_package(seed: int = 0) -> ModelPackage:
    draw = np.random.default_rng(seed)
    return ModelPackage(
        ARCHITECTURE,
        packed={
            "head.bias": draw.normal(size=2).astype(np.float32),
            "codes": draw.integers(0, 9, 5).astype(np.uint8),
        },
        latent={"head.bias": draw.normal(size=2).astype(np.float16)},
        fisher={"head.bias": draw.random(2).astype(np.float16)},
        reference={"labels": draw.integers(0, 2, 7)},
        provenance={"seed": seed, "data": "é"},
    )


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def test_a_package_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_package(a_package(), path)
    loaded = load_package(path, parts=("packed", "latent", "fisher", "reference"))
    assert loaded.architecture == ARCHITECTURE
    assert loaded.provenance == {"seed": 0, "data": "é"}
    for part in ("packed", "latent", "fisher", "reference"):
        assert_equal(getattr(loaded, part), getattr(a_package(), part))


@settings(max_examples=25, deadline=None)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1),
        arrays.arrays(
            st.sampled_from([np.uint8, np.int8, np.int32, np.int64, np.float16, np.float32, np.float64]),
            arrays.array_shapes(min_dims=0, min_side=0),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_safetensors(
    tensors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("package") / "model.safetensors"
    save_package(ModelPackage(ARCHITECTURE, packed=tensors), path)
    assert_equal(load_file(path), {f"packed/{name}": tensor for name, tensor in tensors.items()})


def test_other_parts_stay_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_package(a_package(), path)
    loaded = load_package(path)
    assert loaded.packed
    assert not loaded.latent
    assert not loaded.fisher
    assert not loaded.reference


def test_equal_packages_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    first = save_package(a_package(), tmp_path / "first")
    shuffled = a_package()
    shuffled = ModelPackage(
        ARCHITECTURE,
        packed=dict(reversed(shuffled.packed.items())),
        latent=shuffled.latent,
        fisher=shuffled.fisher,
        reference=shuffled.reference,
        provenance=dict(reversed(shuffled.provenance.items())),
    )
    assert save_package(shuffled, tmp_path / "second") == first == digest(tmp_path / "first")
    assert save_package(a_package(seed=1), tmp_path / "third") != first


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    before = save_package(a_package(), path)
    unwritable = ModelPackage(ARCHITECTURE, packed={"complex": np.zeros(3, np.complex64)})
    with pytest.raises(KeyError):
        save_package(unwritable, path)
    assert digest(path) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_unread(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"weights": [1.0] * 50}, protocol=protocol))
    with pytest.raises(PickledCheckpoint, match=r"model\.safetensors"):
        load_package(path)


def test_a_zip_of_pickles_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({}))
    with pytest.raises(PickledCheckpoint):
        load_package(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_corrupt(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.safetensors"
    save_package(a_package(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CorruptCheckpoint, match=r"model\.safetensors"):
        load_package(path)


def test_a_missing_file_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match="nowhere"):
        load_package(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (None, "format"),
        ({"format": "other/1"}, "format"),
        ({"format": "medloop-package/1"}, "architecture"),
        ({"format": "medloop-package/1", "architecture": "{}"}, "architecture"),
        ({"format": "medloop-package/1", "architecture": ARCHITECTURE.to_json()}, "provenance"),
        (
            {"format": "medloop-package/1", "architecture": ARCHITECTURE.to_json(), "provenance": "[]"},
            "provenance",
        ),
    ],
)
def test_a_foreign_safetensors_file_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None, reason: str
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"packed/head.bias": np.zeros(2, np.float32)}, path, metadata)
    with pytest.raises(CorruptCheckpoint, match=reason):
        load_package(path)


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_package(ModelPackage(ARCHITECTURE, packed=a_package().packed), path)
    with pytest.raises(CorruptCheckpoint, match="latent"):
        load_package(path, parts=("latent",))


def test_another_digest_is_refused_and_the_right_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    found = save_package(a_package(), path)
    load_package(path, expected_sha256=found)
    with pytest.raises(DigestMismatch, match=found):
        load_package(path, expected_sha256="0" * 64)


def test_a_teacher_is_latent_alone_and_in_full_precision(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    package = a_package()
    save_teacher(ModelPackage(ARCHITECTURE.full_precision(), latent=package.latent), path)
    assert_equal(load_teacher(path).latent, package.latent)
    assert set(load_file(path)) == {"latent/head.bias"}
    save_package(package, path)
    with pytest.raises(CorruptCheckpoint, match="quantised"):
        load_teacher(path)
