"""Fisher information that travels without its model: measured anew in the cloud, used on every device.

The file is a package with `fisher/…` only, as a teacher is one with `latent/…` only; its provenance says on
which package it was measured, on what data and how. It holds for that one package: on another, even of the
same shape, other weights matter.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medloop_model.checkpoint import ModelPackage, Tensors, load_package, save_package
from medloop_model.errors import FisherOfAnotherBase, UnfitFisher


@dataclass(frozen=True)
class FisherOrigin:
    """What Fisher information was measured on.

    Args:
        base_version: the model's version.
        base_sha256: SHA-256 of its package, in hex.
        data: name of the data set.
        data_sha256: SHA-256 of the data set, in hex.
        images: how many of its images were looked at.
        seed: of their draw.
        command: the command line that makes the file again.
    """

    base_version: str
    base_sha256: str
    data: str
    data_sha256: str
    images: int
    seed: int
    command: str


def save_fisher(base: ModelPackage, fisher: Tensors, origin: FisherOrigin, path: Path) -> str:
    """Write a Fisher file in one step.

    Args:
        base: the package it was measured on, with its latent weights.
        fisher: diagonal Fisher information of each latent weight, normalised; kept as fp16.
        origin: goes into the file as its provenance.
        path: where to.

    Returns:
        The file's SHA-256 in hex; equal measurements give equal bytes.

    Raises:
        UnfitFisher: names, shapes or values aren't those of Fisher information of the base.
    """
    rounded = {name: tensor.astype(np.float16) for name, tensor in fisher.items()}
    _refuse_unfit(path, rounded, base.latent)
    return save_package(ModelPackage(base.architecture, fisher=rounded, provenance=asdict(origin)), path)


def load_fisher(path: Path, base: ModelPackage, base_sha256: str) -> Tensors:
    """Read a Fisher file, for the package that it was measured on and no other.

    Args:
        path: the file.
        base: the package that is to be adapted, with its latent weights.
        base_sha256: SHA-256 of that package's file, in hex.

    Raises:
        FisherOfAnotherBase: it was measured on another package, or doesn't say on which.
        UnfitFisher: a tensor is missing, unknown, of another shape, negative or not finite.
        CorruptCheckpoint, PickledCheckpoint: as `load_package`.
    """
    package = load_package(path, parts=("fisher",))
    measured_on = package.provenance.get("base_sha256")
    if measured_on != base_sha256:
        raise FisherOfAnotherBase(path, base_sha256, str(measured_on or "unknown"))
    _refuse_unfit(path, package.fisher, base.latent)
    return package.fisher


def _refuse_unfit(path: Path, fisher: Tensors, latent: Tensors) -> None:
    for name in sorted(fisher.keys() ^ latent.keys()):
        wrong = "of no weight of its model" if name in fisher else "missing"
        raise UnfitFisher(f"{path}: fisher/{name} is {wrong}; measure it again")
    for name, tensor in fisher.items():
        if tensor.shape != latent[name].shape:
            raise UnfitFisher(
                f"{path}: fisher/{name} has shape {tensor.shape}, its model's weights {latent[name].shape}; "
                "measure it again"
            )
        if not (np.isfinite(tensor).all() and (tensor >= 0).all()):
            raise UnfitFisher(f"{path}: fisher/{name} has values below 0 or not finite; measure it again")
