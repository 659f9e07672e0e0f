"""Draws streams from labelled images: independent ones, and ones whose classes stick together.

Shapes: n images of a pool, c classes, t images of a stream.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Shares = NDArray[np.float64]

STAY = 0.97
"""How often the next image of a sticky stream is of the same class: one ward's patients arrive together."""


class Kind(StrEnum):
    """How a stream's images depend on each other."""

    IID = "iid"
    CORRELATED = "correlated"


def draw_classes(kind: Kind, shares: Shares, random: np.random.Generator) -> Index:
    """Return (t,) the class of each image of a stream.

    A sticky stream keeps its class or draws it anew from the shares, such that neighbours are alike STAY of
    the time and every class is as frequent as in an independent stream.

    Args:
        kind: of stream.
        shares: (t, c), how often each class is shown at each moment; rows sum to 1.
        random: the source.
    """
    fresh: Index = (random.random(len(shares))[:, np.newaxis] > np.cumsum(shares, axis=1)[:, :-1]).sum(1)
    if kind is Kind.IID:
        return fresh
    # Alike by chance: Σ s². Keeping with probability ρ makes neighbours alike ρ + (1 − ρ) Σ s² of the time.
    alike = (shares**2).sum(1)
    keep = np.where(alike < STAY, (STAY - alike) / np.maximum(1 - alike, 1e-12), 0.0)
    renewed = random.random(len(shares)) >= keep
    renewed[0] = True
    latest = np.maximum.accumulate(np.where(renewed, np.arange(len(shares)), 0))
    return fresh[latest]


def draw_images(classes: Index, labels: Index, random: np.random.Generator) -> Index:
    """Return (t,) rows of a pool, each drawn from its class with replacement.

    Args:
        classes: (t,), the class of each image.
        labels: (n,), the pool's.
        random: the source.
    """
    rows = np.empty(len(classes), np.int64)
    for label in np.unique(classes):
        places = np.flatnonzero(classes == label)
        rows[places] = random.choice(np.flatnonzero(labels == label), len(places))
    return rows
