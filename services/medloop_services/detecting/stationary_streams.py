"""Draws streams from labelled images: independent ones, and ones whose classes stick together.

Shapes: n images of a pool, c classes, t images of a stream.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from medloop_services.drift_detection.calibration import PERSISTENCE
from medloop_services.drift_detection.calibration import draw_classes as draw_sticky_classes

Index = NDArray[np.int64]
Shares = NDArray[np.float64]

STAY = PERSISTENCE
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
    persistence = np.array([STAY if kind is Kind.CORRELATED else 0.0])
    classes: Index = draw_sticky_classes(shares[np.newaxis], persistence, random)[0]
    return classes


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
