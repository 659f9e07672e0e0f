"""River's detectors as one would use them here: one a data-layer scalar, its confidence shared among them.

Scalars are standardised by the reference's mean and deviation, over all classes: River knows no classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from measured import FloatArray, Measured
from medloop_model.statistics import Reference
from river.drift import ADWIN, KSWIN, PageHinkley
from river.drift.binary import DDM, HDDMA
from watching import Contender

KSWIN_SHARE = 0.1
"""It tests after every image, some milliseconds for all scalars."""

SMALLEST_SCALE = 1e-3


class DataLayer:
    """The data layer's scalars, standardised.

    Args:
        reference: what standard means.

    Attributes:
        reference: (n, k) the reference's own scores.
    """

    def __init__(self, reference: Reference) -> None:
        self._columns = [n for n, name in enumerate(reference.names) if name.startswith("data.")]
        matrix: FloatArray = reference.matrix()[:, self._columns].astype(np.float64)
        self._centre, self._scale = matrix.mean(0), np.maximum(matrix.std(0), SMALLEST_SCALE)
        self.reference: FloatArray = (matrix - self._centre) / self._scale

    def scores(self, rows: Measured) -> FloatArray:
        """Return images' scores, (n, k)."""
        scores: FloatArray = (rows.scalars[:, self._columns] - self._centre) / self._scale
        return scores


class OnScalars:
    """One of River's detectors a data-layer scalar.

    Args:
        reference: what standard means.
        make: returns a new detector, given how many there are.
    """

    def __init__(self, reference: Reference, make: Callable[[int], Any]) -> None:
        self._layer, self._make = DataLayer(reference), make
        self.reset()

    def reset(self) -> None:
        scalars = self._layer.reference.shape[1]
        self._detectors = [self._make(scalars) for _ in range(scalars)]

    def update(self, rows: Measured) -> bool:
        found = False
        for detector, values in zip(self._detectors, self._layer.scores(rows).T.tolist(), strict=True):
            for value in values:
                detector.update(value)
                found = found or detector.drift_detected
        return found


class OnErrors:
    """One of River's detectors of a classifier's errors.

    Args:
        make: returns a new one.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.reset()

    def reset(self) -> None:
        self._detector = self._make()

    def update(self, rows: Measured) -> bool:
        found = False
        for wrong in (rows.predicted != rows.read).tolist():
            self._detector.update(wrong)
            found = found or self._detector.drift_detected
        return found


def image_peers(reference: Reference) -> list[Contender]:
    """Return River's quick detectors of numbers: its defaults, confidences shared among the scalars."""
    return [
        Contender("river ADWIN", OnScalars(reference, lambda scalars: ADWIN(delta=0.002 / scalars))),
        Contender("river PageHinkley", OnScalars(reference, lambda _: PageHinkley())),
    ]


def kswin_peer(reference: Reference, seed: int) -> Contender:
    """Return River's slow one, likewise."""
    watcher = OnScalars(reference, lambda scalars: KSWIN(alpha=0.005 / scalars, seed=seed))
    return Contender("river KSWIN", watcher, KSWIN_SHARE)


def label_peers() -> list[Contender]:
    """Return River's detectors of errors, with its defaults."""
    return [
        Contender("river ADWIN errors", OnErrors(ADWIN)),
        Contender("river DDM", OnErrors(DDM)),
        Contender("river HDDM_A", OnErrors(HDDMA)),
    ]
