from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medloop_services.replay import dataset as dataset_module
from medloop_services.replay.dataset import (
    POOL_SHARE,
    Dataset,
    DataSettings,
    draw_dataset,
    load_dataset,
    read_dataset,
)
from medloop_services.replay.errors import DatasetError
from numpy.typing import NDArray


def arrays(side: int = 8, colour: bool = False, classes: int = 3) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(0)
    made: dict[str, NDArray[Any]] = {}
    for name, count in (("train", 60), ("val", 12), ("test", 18)):
        shape = (count, side, side, 3) if colour else (count, side, side)
        made[f"{name}_images"] = generator.integers(0, 256, shape, dtype=np.uint8)
        made[f"{name}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return made


def saved(folder: Path, name: str = "unseen.npz", **changes: Any) -> Path:
    path = folder / name
    contents = {**arrays(), **changes}
    np.savez(path, allow_pickle=True, **{key: value for key, value in contents.items() if value is not None})
    return path


def quiet(line: str) -> None:
    """Print nothing."""


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("side", [28, 64])
def test_any_file_in_medmnist_layout_is_read(tmp_path: Path, side: int, colour: bool) -> None:
    path = tmp_path / "unseen.npz"
    contents = arrays(side, colour)
    np.savez(path, allow_pickle=False, **contents)
    dataset = read_dataset(path)
    assert (dataset.image_size, dataset.channels) == (side, 3 if colour else 1)
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert dataset.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert np.array_equal(dataset.test.images, contents["test_images"])
    assert np.array_equal(dataset.test.labels, contents["test_labels"][:, 0])
    assert dataset.train.labels.dtype == np.int64


def test_known_files_have_class_names(tmp_path: Path) -> None:
    path = tmp_path / "pneumoniamnist.npz"
    np.savez(path, allow_pickle=False, **arrays(classes=2))
    assert read_dataset(path).class_names == ("normal", "pneumonia")


def test_class_names_in_the_file_win(tmp_path: Path) -> None:
    assert read_dataset(saved(tmp_path, class_names=np.array(["a", "b", "c"]))).class_names == ("a", "b", "c")


def test_sites_are_read(tmp_path: Path) -> None:
    sites: dict[str, Any] = {
        f"{name}_site": np.arange(count) % 2 for name, count in (("train", 60), ("val", 12), ("test", 18))
    }
    train = read_dataset(saved(tmp_path, **sites)).train
    assert train.sites is not None
    assert len(train.at_site(1)) == 30


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_labels": None}, "no array val_labels"),
        ({"train_images": None}, "no array train_images"),
        ({"train_images": np.zeros((60, 8, 8), np.float32)}, "train_images is float32, not uint8"),
        ({"train_images": np.zeros((60, 8, 8, 4), np.uint8)}, r"train_images has shape \(60, 8, 8, 4\)"),
        ({"test_images": np.zeros((18, 9, 9), np.uint8)}, "differ in shape"),
        ({"test_images": np.zeros((0, 8, 8), np.uint8)}, "test_images has shape"),
        ({"train_labels": np.zeros((59, 1), np.uint8)}, r"train_labels has shape \(59, 1\)"),
        ({"train_labels": np.zeros((60, 14), np.uint8)}, "several findings an image are not supported"),
        ({"train_labels": np.zeros((60, 1), np.float64)}, "train_labels is float64, not integers"),
        ({"val_labels": np.full((12, 1), -1)}, "val_labels runs from -1"),
        ({"val_labels": np.full((12, 1), 5000)}, "val_labels runs from 5000 to 5000"),
        ({"class_names": np.array(["only"])}, "class_names has 1 names"),
        ({"train_images": np.array([object()])}, "can't be read as npz"),
    ],
)
def test_a_wrong_array_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(DatasetError, match=words) as refused:
        read_dataset(path)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    path.write_bytes(saved(tmp_path).read_bytes()[:500])
    with pytest.raises(DatasetError, match="can't be read as npz"):
        read_dataset(path)
    with pytest.raises(DatasetError, match="does not exist"):
        read_dataset(tmp_path / "nowhere.npz")


def test_a_folder_gives_the_file_that_suits_the_scenario(tmp_path: Path) -> None:
    saved(tmp_path, "wbc_64.npz")
    assert load_dataset(str(tmp_path), scenario="site-change", announce=quiet).name == "wbc_64"
    with pytest.raises(DatasetError, match="which new-class needs"):
        load_dataset(str(tmp_path), scenario="new-class", announce=quiet)


def test_what_is_named_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLOOP_DATA", str(saved(tmp_path, "environment.npz")))
    assert load_dataset(announce=quiet).name == "environment"
    named = saved(tmp_path, "named.npz")
    assert load_dataset(str(named), announce=quiet).name == "named"


def test_phantoms_are_drawn_where_nothing_can_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(dataset_module, "download", lambda flag, folder: None)
    dataset = load_dataset(settings=DataSettings(data=None), announce=lines.append)
    assert dataset.name == "phantoms"
    assert len(lines) == 1
    assert "NOT patients" in lines[0]


@pytest.fixture(scope="module")
def phantoms() -> Dataset:
    return draw_dataset()


def test_the_pool_is_never_trained_on(phantoms: Dataset) -> None:
    division = phantoms.divide()
    training, pool = set(division.training.studies), set(division.pool.studies)
    assert not training & pool
    assert training | pool == set(phantoms.train.studies)
    for label in (0, 1):
        share = np.mean(division.pool.labels == label) * len(pool) / np.sum(phantoms.train.labels == label)
        assert share == pytest.approx(POOL_SHARE, abs=0.001)


def test_a_division_depends_on_its_seed_alone(phantoms: Dataset) -> None:
    assert np.array_equal(phantoms.divide(0).pool.studies, phantoms.divide(0).pool.studies)
    assert not np.array_equal(phantoms.divide(0).pool.studies, phantoms.divide(1).pool.studies)


def test_a_third_class_changes_no_phantom_of_the_others(phantoms: Dataset) -> None:
    wider = draw_dataset("new-class")
    assert wider.class_names == ("normal", "opacity", "nodule")
    for label in (0, 1):
        for part in ("training", "pool"):
            two, three = getattr(phantoms.divide(), part), getattr(wider.divide(), part)
            assert np.array_equal(two.images[two.labels == label], three.images[three.labels == label])


def test_phantoms_are_the_same_on_every_machine() -> None:
    assert draw_dataset().digest == draw_dataset().digest
    assert draw_dataset(seed=1).digest != draw_dataset().digest


def test_the_phantoms_other_site_looks_different() -> None:
    train = draw_dataset("site-change").train
    ward, elsewhere = train.at_site(0).images / 255, train.at_site(1).images / 255
    assert elsewhere.std() < 0.8 * ward.std()
    assert abs(len(ward) - len(elsewhere)) <= 2


@pytest.mark.parametrize(
    "names", [np.array("normal"), np.array(["a", "", "c"]), np.array(["a", "b", "c" * 65])]
)
def test_class_names_that_no_event_can_carry_are_refused(tmp_path: Path, names: NDArray[Any]) -> None:
    with pytest.raises(DatasetError, match="class_names"):
        read_dataset(saved(tmp_path, class_names=names))
