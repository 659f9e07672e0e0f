"""`medloop pretrain --suite medmnist`: a model for each 2-D set of MedMNIST, beside the published figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medloop_model.checkpoint import load_package

from medloop_services.bus.cache import cache_directory
from medloop_services.pretraining import MODEL_FILE
from medloop_services.replay.dataset import Dataset, read_dataset
from medloop_services.replay.download import download
from medloop_services.replay.errors import DatasetError

PUBLISHED: Mapping[str, float] = {
    "pathmnist": 0.821,
    "chestmnist": 0.937,
    "dermamnist": 0.762,
    "octmnist": 0.857,
    "pneumoniamnist": 0.880,
    "retinamnist": 0.513,
    "breastmnist": 0.821,
    "bloodmnist": 0.975,
    "tissuemnist": 0.638,
    "organamnist": 0.902,
    "organcmnist": 0.884,
    "organsmnist": 0.741,
}
"""Test accuracy of BiTMedViT at 224 px (ICCAD 2025, its table of MedMNIST results)."""

Train = Callable[[Dataset, Path], float]
"""Trains a model for a data set into a folder; returns its test accuracy."""


@dataclass(frozen=True, slots=True)
class SuiteRow:
    """One data set: test accuracies in [0, 1]; without ours, why there is none."""

    data: str
    published: float
    ours: float | None = None
    reason: str = ""


def run_suite(
    folder: Path,
    data: Path | None,
    *,
    command_of: Callable[[str], str],
    train: Train,
    tell: Callable[[str], None],
) -> list[SuiteRow]:
    """Train a model for every set that can be had; one that lies there from the same command is kept.

    Args:
        folder: gets one folder a set.
        data: where files may lie already; others are downloaded.
        command_of: the command line that is kept in the provenance of a set's model.
        train: trains one.
        tell: told what is in use.
    """
    rows = []
    for flag, published in PUBLISHED.items():
        file = _file_of(flag, data)
        if file is None:
            rows.append(SuiteRow(flag, published, reason="the download can't be reached"))
            continue
        try:
            dataset = read_dataset(file)
        except DatasetError as error:
            rows.append(SuiteRow(flag, published, reason=str(error)))
            continue
        tell(f"data: {dataset.source}")
        ours = _kept(folder / flag / MODEL_FILE, command_of(file.name), dataset.digest)
        rows.append(SuiteRow(flag, published, train(dataset, folder / flag) if ours is None else ours))
    return rows


def _file_of(flag: str, data: Path | None) -> Path | None:
    folders = [] if data is None else [data / "medmnist", data]
    found = (path for folder in folders if (path := folder / f"{flag}.npz").is_file())
    return next(found, None) or download(flag, cache_directory() / "medmnist")


def _kept(model: Path, command: str, data_sha256: str) -> float | None:
    """The test accuracy of a model that the same command made from the same data before."""
    if not model.exists():
        return None
    provenance = load_package(model, parts=()).provenance
    same = provenance.get("command") == command and provenance.get("data_sha256") == data_sha256
    return float(provenance["test_accuracy"]) if same else None
