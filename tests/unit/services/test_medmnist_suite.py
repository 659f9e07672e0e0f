from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medloop_model import pretrained
from medloop_model.checkpoint import load_package, save_package
from medloop_services import medmnist_suite
from medloop_services.medmnist_suite import PUBLISHED, SuiteRow, run_suite
from medloop_services.replay.dataset import Dataset, read_dataset


def write_set(path: Path, labels: np.ndarray) -> None:
    images = np.zeros((len(labels), 28, 28), np.uint8)
    path.parent.mkdir(exist_ok=True)
    np.savez(
        path,
        **{f"{split}_images": images for split in ("train", "val", "test")},
        **{f"{split}_labels": labels for split in ("train", "val", "test")},
    )


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two of the sets; the others can't be downloaded."""
    monkeypatch.setattr(medmnist_suite, "download", lambda flag, folder: None)
    write_set(tmp_path / "medmnist/breastmnist.npz", np.arange(20)[:, None] % 2)
    write_set(tmp_path / "medmnist/chestmnist.npz", np.ones((20, 14), np.int64))
    return tmp_path


def run(data: Path, trained: list[str]) -> dict[str, SuiteRow]:
    def train(dataset: Dataset, folder: Path) -> float:
        trained.append(dataset.name)
        package = load_package(pretrained.path("phantom"))
        package.provenance.update(  # type: ignore[attr-defined]
            command=f"train {dataset.name}.npz", data_sha256=dataset.digest, test_accuracy=0.9
        )
        save_package(package, folder / "model.safetensors")
        return 0.9

    rows = run_suite(
        data / "models", data, command_of=lambda file: f"train {file}", train=train, tell=lambda line: None
    )
    return {row.data: row for row in rows}


def test_every_set_has_a_row_and_what_is_missing_a_reason(data: Path) -> None:
    rows = run(data, [])
    assert rows.keys() == PUBLISHED.keys()
    assert rows["breastmnist"] == SuiteRow("breastmnist", 0.821, 0.9)
    assert rows["pathmnist"].ours is None
    assert "can't be reached" in rows["pathmnist"].reason
    assert "labels" in rows["chestmnist"].reason


def test_what_was_trained_from_the_same_data_is_kept(data: Path) -> None:
    trained: list[str] = []
    assert run(data, trained)["breastmnist"].ours == 0.9
    assert run(data, trained)["breastmnist"].ours == 0.9
    assert trained == ["breastmnist"]
    write_set(data / "medmnist/breastmnist.npz", np.arange(22)[:, None] % 2)
    run(data, trained)
    assert trained == ["breastmnist"] * 2
    assert read_dataset(data / "medmnist/breastmnist.npz").name == "breastmnist"
