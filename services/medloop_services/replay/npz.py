"""Files in MedMNIST's npz layout: `{train,val,test}_images` and `{…}_labels`, and `{…}_site` if known."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from medloop_schemas.label import LONGEST_CLASS_NAME, MAX_CLASSES
from numpy.typing import NDArray

from medloop_services.replay.errors import DatasetError
from medloop_services.replay.split import Split, name_studies

KNOWN_CLASSES: Mapping[str, tuple[str, ...]] = {
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal or benign"),
    "mednist": ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT"),
    "bccd": ("red cell", "white cell", "platelet"),
    "wbc": ("neutrophil", "lymphocyte", "monocyte", "eosinophil"),
}
"""Class names of files that carry none, by the start of their name."""


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """What a file in MedMNIST's layout holds."""

    splits: tuple[Split, Split, Split]
    class_names: tuple[str, ...]


def read_npz(path: Path) -> LabelledFile:
    """Read a file in MedMNIST's layout.

    Raises:
        DatasetError: the file or one of its arrays can't be used; names it and says what to do.
    """
    arrays = _arrays(path)
    splits = (_split(arrays, path, "train"), _split(arrays, path, "val"), _split(arrays, path, "test"))
    shapes = {split.images.shape[1:] for split in splits}
    if len(shapes) > 1:
        raise DatasetError(
            f"{path}: the splits' images differ in shape ({', '.join(map(str, sorted(shapes)))}); "
            "bring them to one size and colour"
        )
    return LabelledFile(splits, _class_names(arrays, path, splits))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DatasetError(f"{path} holds one array, not a set; save it with numpy.savez_compressed")
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist; name an npz file in MedMNIST's layout") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path} can't be read as npz ({error}); it may be cut short or hold objects, save it again"
        ) from None


def _array(arrays: Mapping[str, NDArray[Any]], path: Path, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise DatasetError(
            f"{path} has no array {name}; MedMNIST's layout needs {{train,val,test}}_images and _labels, "
            f"found {', '.join(sorted(arrays)) or 'none'}"
        )
    return arrays[name]


def _split(arrays: Mapping[str, NDArray[Any]], path: Path, name: str) -> Split:
    images = _array(arrays, path, f"{name}_images")
    if images.dtype != np.uint8:
        raise DatasetError(
            f"{path}: {name}_images is {images.dtype}, not uint8; scale it to 0–255 and use .astype('uint8')"
        )
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)) or 0 in images.shape:
        raise DatasetError(
            f"{path}: {name}_images has shape {images.shape}, not (N, H, W) or (N, H, W, 3) with N ≥ 1"
        )
    count = len(images)
    labels = _column(arrays, path, f"{name}_labels", count)
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise DatasetError(
            f"{path}: {name}_labels runs from {labels.min()} to {labels.max()}; "
            f"class indices are 0 to {MAX_CLASSES - 1}"
        )
    site = f"{name}_site"
    sites = _column(arrays, path, site, count) if site in arrays else None
    return Split(images, labels, name_studies(name, count), sites)


def _column(arrays: Mapping[str, NDArray[Any]], path: Path, name: str, count: int) -> NDArray[np.int64]:
    column = _array(arrays, path, name)
    if column.dtype.kind not in "iub":
        raise DatasetError(f"{path}: {name} is {column.dtype}, not integers; give one whole number an image")
    if column.shape not in {(count,), (count, 1)}:
        raise DatasetError(
            f"{path}: {name} has shape {column.shape}, not ({count}, 1); one label an image is needed, "
            "several findings an image are not supported"
        )
    return column.reshape(count).astype(np.int64)


def _class_names(
    arrays: Mapping[str, NDArray[Any]], path: Path, splits: tuple[Split, ...]
) -> tuple[str, ...]:
    count = 1 + max(int(split.labels.max()) for split in splits)
    if "class_names" in arrays:
        names = tuple(map(str, np.atleast_1d(arrays["class_names"])))
        if any(not 1 <= len(name) <= LONGEST_CLASS_NAME for name in names):
            raise DatasetError(f"{path}: each of class_names needs 1 to {LONGEST_CLASS_NAME} characters")
        if len(names) < count:
            raise DatasetError(
                f"{path}: class_names has {len(names)} names, the labels need {count}; add the missing ones"
            )
        return names
    known = next((names for stem, names in KNOWN_CLASSES.items() if path.stem.startswith(stem)), ())
    return known if len(known) == count else tuple(f"class {index}" for index in range(count))
