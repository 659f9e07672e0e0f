"""Hospitals of unlike patients and scanners, made from one data set.

Shape suffixes: K hospitals · N classes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medloop_services.replay.corruption import corrupt
from medloop_services.replay.dataset import Dataset
from medloop_services.replay.errors import DatasetError
from medloop_services.replay.split import Index, Split

SCANNERS = ("gamma-up", "contrast-down", "gaussian-blur", "brightness-up", "gaussian-noise", "scanner")
"""What the hospitals' scanners do, one after the other; a seventh hospital has the first one's again."""

FEWEST_IMAGES = 16
"""Of a hospital: one mini-batch. Shares that leave one with fewer are drawn again."""

_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Hospital:
    """One site of a federation.

    Attributes:
        name: `site-1`, `site-2`, …
        scanner: what its scanner does to images.
        training: its labelled images, as its scanner shows them.
        test: everybody's test images, as its scanner shows them.
        mix: (N,) how often each class is among its patients.
    """

    name: str
    scanner: str
    training: Split
    test: Split
    mix: NDArray[np.float64]


def draw_hospitals(
    dataset: Dataset, count: int, concentration: float, *, images: int, severity: int, seed: int
) -> tuple[Hospital, ...]:
    """Divide the images that a model was not pretrained on among hospitals.

    Each class is divided by shares drawn from a symmetric Dirichlet distribution, as is usual for non-IID
    sites (Hsu et al., arXiv 1909.06335; Li et al., arXiv 2102.02079, "distribution-based label imbalance"):
    at a concentration of 0.3 most of a class is at one or two hospitals, at 100 all have the same mix. So
    hospitals differ in size, too.

    Args:
        dataset: of which the pool is divided, see `Dataset.divide`.
        count: K.
        concentration: α > 0 of the Dirichlet distribution.
        images: a hospital has so many on average; rare classes first.
        severity: 1 to 5, of what a scanner does.
        seed: of everything that is drawn.

    Raises:
        DatasetError: too few images for so many hospitals, or a class that no test image shows.
    """
    for label, name in enumerate(dataset.class_names):
        if label not in dataset.test.labels:
            raise DatasetError(
                f"no test image shows {name}, so that its recall can't be told; name another file"
            )
    random = np.random.default_rng(seed)
    pool = _rare_first(dataset.divide().pool, images * count, random)
    members = _divided(pool.labels, count, concentration, random)
    return tuple(
        _hospital(number, pool.select(mine), dataset, severity, seed) for number, mine in enumerate(members)
    )


def pooled(hospitals: Sequence[Hospital]) -> Split:
    """All hospitals' training images, in an order in which they take turns."""
    images = np.concatenate([hospital.training.images for hospital in hospitals])
    labels = np.concatenate([hospital.training.labels for hospital in hospitals])
    studies = np.concatenate([hospital.training.studies for hospital in hospitals])
    turns = np.concatenate([np.linspace(0, 1, len(hospital.training)) for hospital in hospitals])
    return Split(images, labels, studies).select(np.argsort(turns, kind="stable"))


def few_of_home(dataset: Dataset, count: int, seed: int) -> Split:
    """Some of the images that the base was trained on, as many of each class: what may come with a model."""
    return _rare_first(dataset.divide().training, count, np.random.default_rng(seed))


def _rare_first(pool: Split, wanted: int, random: np.random.Generator) -> Split:
    """So many images of as even a mix of classes as there are images for."""
    shuffled = pool.select(random.permutation(len(pool)))
    rank = np.empty(len(shuffled), np.int64)
    for label in np.unique(shuffled.labels):
        mine = np.flatnonzero(shuffled.labels == label)
        rank[mine] = np.arange(len(mine))
    return shuffled.select(np.sort(np.argsort(rank, kind="stable")[:wanted]))


def _divided(labels: Index, count: int, concentration: float, random: np.random.Generator) -> list[Index]:
    """Which images each hospital has, every image at one."""
    if len(labels) < count * FEWEST_IMAGES:
        raise DatasetError(f"{len(labels)} images are too few for {count} hospitals; name a larger file")
    for _ in range(_DRAWS):
        owner = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            mine = np.flatnonzero(labels == label)
            bounds_K = np.cumsum(random.dirichlet(np.full(count, concentration))) * len(mine)
            owner[mine] = np.searchsorted(bounds_K[:-1], np.arange(len(mine)), side="right")
        members = [np.flatnonzero(owner == number) for number in range(count)]
        if min(map(len, members)) >= FEWEST_IMAGES:
            return members
    raise DatasetError(
        f"no hospital of {count} gets {FEWEST_IMAGES} images at a concentration of {concentration}; "
        "choose fewer sites or a higher --non-iid"
    )


def _hospital(number: int, training: Split, dataset: Dataset, severity: int, seed: int) -> Hospital:
    scanner = SCANNERS[number % len(SCANNERS)]

    def shown(split: Split, part: int) -> Split:
        return split.repainted(corrupt(split.images, scanner, severity, (seed, number, part)))

    counts_N = np.bincount(training.labels, minlength=len(dataset.class_names))
    return Hospital(
        name=f"site-{number + 1}",
        scanner=scanner,
        training=shown(training, 0),
        test=shown(dataset.test, 1),
        mix=counts_N / counts_N.sum(),
    )
