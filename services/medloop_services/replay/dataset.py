"""Labelled images: from a file, a folder, MedMNIST's downloader, or drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from medloop_services.bus.cache import cache_directory
from medloop_services.bus.context import load_settings
from medloop_services.replay.download import download
from medloop_services.replay.errors import DatasetError
from medloop_services.replay.npz import read_npz
from medloop_services.replay.phantom import CLASS_NAMES, draw_splits
from medloop_services.replay.split import Index, Split

PHANTOMS = "phantoms"
"""What to write in place of a path to draw the images."""

POOL_SHARE = 0.3
"""Share of the training images that only ever stream."""

DEFAULT_FILES = {
    "data-drift": "medmnist/pneumoniamnist.npz",
    "concept-drift": "medmnist/pneumoniamnist.npz",
    "new-class": "mednist/mednist_64.npz",
    "site-change": "wbc/wbc_64.npz",
}
"""Scenario → the file of a data folder that suits it."""

DOWNLOADS = {"data-drift": "pneumoniamnist", "concept-drift": "pneumoniamnist"}
"""Scenario → MedMNIST's name of the set that suits it; the other scenarios are drawn."""


class DataSettings(BaseSettings):
    """Where images are, read from `MEDLOOP_DATA`."""

    model_config = SettingsConfigDict(
        env_prefix="MEDLOOP_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    data: Path | None = Field(default=None, description="npz file, or folder of such files")


@dataclass(frozen=True, slots=True)
class Division:
    """The training images, divided for good: what may be trained on, and what only streams."""

    training: Split
    pool: Split


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled images in three splits.

    Attributes:
        name: of the file without its ending, or `phantoms`.
        source: one line that says what is in use.
        class_names: by class index.
        train, validation, test: the splits; validation sets references and thresholds, test only reports.
        digest: SHA-256 of the file's bytes, or of the drawn arrays.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    digest: str

    @property
    def image_size(self) -> int:
        """Pixels a side.

        Raises:
            DatasetError: the images are not square.
        """
        height, width = self.train.images.shape[1:3]
        if height != width:
            raise DatasetError(f"{self.name}: images are {height}×{width}; crop or pad them to a square")
        return int(height)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.train.images.ndim == 3 else 3

    def divide(self, seed: int = 0) -> Division:
        """Divide the training images by class and site into 70 % to train on and a pool of 30 % to stream.

        A class's division depends on the seed and that class alone: leaving out a class moves no image.
        """
        in_pool = pool_members(self.train, seed)
        return Division(self.train.select(~in_pool), self.train.select(in_pool))


def pool_members(split: Split, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return (N,) bool: which images of a split only ever stream, POOL_SHARE of each class and site."""
    in_pool = np.zeros(len(split), np.bool_)
    sites = np.zeros(len(split), np.int64) if split.sites is None else split.sites
    for label in np.unique(split.labels):
        for site in np.unique(sites):
            members: Index = np.flatnonzero((split.labels == label) & (sites == site))
            generator = np.random.default_rng((seed, int(label), int(site)))
            in_pool[generator.permutation(members)[: round(POOL_SHARE * len(members))]] = True
    return in_pool


def load_dataset(
    spec: str | None = None,
    *,
    scenario: str = "data-drift",
    announce: Callable[[str], None] = print,
    settings: DataSettings | None = None,
) -> Dataset:
    """Load images: what `spec` names, else what MEDLOOP_DATA names, else MedMNIST's download, else phantoms.

    Args:
        spec: an npz file in MedMNIST's layout, a folder of such files, or `phantoms`.
        scenario: picks the file of a folder, and how many classes and sites a phantom set has.
        announce: is told in one line what is in use.
        settings: the environment's; read from it unless given.

    Raises:
        DatasetError: the named file, folder or an array in it can't be used.
    """
    settings = settings or load_settings(DataSettings)
    dataset = _load(spec, scenario, settings)
    announce(f"data: {dataset.source}")
    return dataset


def _load(spec: str | None, scenario: str, settings: DataSettings) -> Dataset:
    if spec == PHANTOMS:
        return draw_dataset(scenario)
    named = Path(spec).expanduser() if spec is not None else settings.data and settings.data.expanduser()
    if named is not None:
        return read_dataset(_file_of(named, scenario) if named.is_dir() else named)
    flag = DOWNLOADS.get(scenario)
    downloaded = download(flag, cache_directory() / "medmnist") if flag else None
    return read_dataset(downloaded) if downloaded else draw_dataset(scenario)


def _file_of(folder: Path, scenario: str) -> Path:
    wanted = DEFAULT_FILES.get(scenario, DEFAULT_FILES["data-drift"])
    found = next((path for path in (folder / wanted, folder / Path(wanted).name) if path.is_file()), None)
    if found is None:
        raise DatasetError(f"{folder} has no {wanted}, which {scenario} needs; name an npz file instead")
    return found


def read_dataset(path: Path) -> Dataset:
    """Read a file in MedMNIST's layout.

    Raises:
        DatasetError: the file or one of its arrays can't be used; names it and says what to do.
    """
    labelled = read_npz(path)
    train, validation, test = labelled.splits
    shape = "×".join(map(str, train.images.shape[1:]))
    return Dataset(
        name=path.stem,
        source=(
            f"{path.name}: {len(train)} training, {len(validation)} validation, {len(test)} test images "
            f"of {shape}, {len(labelled.class_names)} classes"
        ),
        class_names=labelled.class_names,
        train=train,
        validation=validation,
        test=test,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def draw_dataset(scenario: str = "data-drift", seed: int = 0) -> Dataset:
    """Draw radiograph phantoms: two classes; a third for `new-class`, a second site for `site-change`."""
    class_count = 3 if scenario == "new-class" else 2
    train, validation, test = draw_splits(class_count, sites=2 if scenario == "site-change" else 1, seed=seed)
    digest = hashlib.sha256()
    for split in (train, validation, test):
        digest.update(split.images.tobytes())
        digest.update(split.labels.tobytes())
    return Dataset(
        name=PHANTOMS,
        source=(
            f"drawn radiograph phantoms, NOT patients: {len(train)} training, {len(validation)} validation, "
            f"{len(test)} test images, {class_count} classes"
        ),
        class_names=CLASS_NAMES[:class_count],
        train=train,
        validation=validation,
        test=test,
        digest=digest.hexdigest(),
    )
