"""Sensor faults: black frames, inverted polarity, a frozen picture. No drift: nobody should learn from these.

It looks at raw data-layer scalars by name, since standard scores are cut where these faults begin, and says
for each fault whether most of the latest images show it. A fault that a reference can't tell from a good
image, or whose scalars it does not have, is not watched.

Black: an image's contrast is a small share of the least that reference images have.

Inverted: intensities i became 1 − i. That swaps the tone quantiles (p05 → 1 − p95, …), turns the colours and
leaves contrast, noise, sharpness and the like as they were. With d an image's Mahalanobis distance (1936) to
the reference, the latest images are inverted if, once mirrored, they are as near as reference images are, and
are far nearer than as they came. Corruptions fail the first half: mirroring undoes no tone curve and no blur.

Frozen: every data-layer scalar of consecutive images is the same, to the last digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from medloop_model.statistics import Reference
from medloop_model.statistics.data import LUMINANCE
from medloop_schemas import DetectorReading, Layer, StatsMeasured
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from medloop_services.drift_detection.detectors.window import Window

FloatArray = NDArray[np.float64]

IMAGES = 16
"""The latest images that are judged: a fault shows in the first micro-batch that is full of it."""

MOST = 0.75
"""Of them more must be black: much light or little makes some good images of a bright or dark kind flat."""

BLACK_CONTRAST = 0.1
"""Of the reference's lowest contrasts; the strongest usual loss of contrast leaves twice as much."""

LOWEST = 0.01
"""Quantile of the reference's contrasts that counts as the lowest."""

FROZEN_IMAGES = 8
"""Equal images in a row that a stream may show by chance, as one that repeats a study does."""

TONES = ("intensity", "tone_p05", "tone_p50", "tone_p95")
MIRRORED = (0, 3, 2, 1)
"""What the tone scalars become: one minus these."""

COLOURS = ("red_share", "blue_share")

UNMOVED = ("contrast", "noise", "sharpness", "blockiness", "clipped", "histogram_entropy")
"""Scalars that inverting leaves as they are."""

MOST_DISTANCE = 3.0
"""In medians of the reference's: an image's distance is cut here, so that one odd image is one vote."""

USUAL_QUANTILE = 0.999
"""Of the mean distances of windows of reference images: as near as they are."""

LEAST_GAP = 0.15
"""In medians of the reference's distances: what mirroring must move its windows by, or it can't be seen."""

FEWEST_OF_A_CLASS = 48
"""Images of a predicted class that make it a group of its own: body parts may look nothing alike."""

WINDOWS = 512
SMALLEST_SPREAD = 1e-4
OWN_VARIANCE = 0.05
"""Standard deviations added to each scalar's own: what two of them hardly ever do apart proves little."""

TURNED_QUANTILE = 0.95
"""Share of inverted windows that stand at twice the threshold or beyond."""

DIGITS = 6


class SensorState(BaseModel):
    """The latest images' raw scalars, how often the last one has come, and since when each fault shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: Window = Window()
    run: int = 0
    since: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class Polarity:
    """What images look like, and what they would if they were inverted.

    Shapes: n images, s scalars, g groups.

    Attributes:
        columns: (s,) places of TONES, COLOURS and those UNMOVED that there are, in this order.
        coloured: whether COLOURS are among them.
        centres: (g, s) mean of all images, or of each predicted class that has enough.
        precisions: (g, s, s) inverse covariances.
        farthest: at which distances are cut.
        usual: the largest mean distance of a window of reference images.
        threshold: of how much nearer a window is once mirrored.
    """

    columns: tuple[int, ...]
    coloured: bool
    centres: FloatArray
    precisions: FloatArray
    farthest: float = np.inf
    usual: float = 0.0
    threshold: float = 0.0

    @classmethod
    def of(cls, names: Sequence[str], matrix: FloatArray, predicted: NDArray[np.int64]) -> Polarity | None:
        """Return a reference's, or None if it lacks a tone or images, or these look much the same inverted.

        Where images of all kinds taken together do, those of each predicted class may not.

        Args:
            names: of the data-layer scalars, as the columns.
            matrix: (n, k) their values on the reference.
            predicted: (n,) the model's answers; a window may be of one class alone.
        """
        if not set(TONES) <= set(names) or len(matrix) < FEWEST_OF_A_CLASS:
            return None
        coloured = set(COLOURS) <= set(names)
        watched = (*TONES, *(COLOURS if coloured else ()), *(name for name in UNMOVED if name in names))
        columns = tuple(names.index(name) for name in watched)
        rows = matrix[:, columns]
        of_class = [rows[predicted == label] for label in np.unique(predicted)]
        drawn, kinds = _windows(predicted), [group for group in of_class if len(group) >= FEWEST_OF_A_CLASS]
        pooled = cls._calibrated(columns, coloured, rows, [rows], drawn)
        return pooled or (cls._calibrated(columns, coloured, rows, kinds, drawn) if kinds else None)

    @classmethod
    def _calibrated(
        cls,
        columns: tuple[int, ...],
        coloured: bool,
        rows: FloatArray,
        groups: Sequence[FloatArray],
        drawn: NDArray[np.int64],
    ) -> Polarity | None:
        uncut = cls(
            columns,
            coloured,
            centres=np.stack([group.mean(0) for group in groups]),
            precisions=np.stack([_precision(group) for group in groups]),
        )
        median = float(np.median(uncut.distances(rows)))
        cut = replace(uncut, farthest=MOST_DISTANCE * median)
        upright, turned = cut.distances(rows), cut.distances(cut.mirrored(rows))
        gap = float(np.quantile((turned - upright)[drawn].mean(1), 1 - TURNED_QUANTILE)) / 2
        if gap < LEAST_GAP * median:
            return None
        return replace(cut, usual=float(np.quantile(upright[drawn].mean(1), USUAL_QUANTILE)), threshold=gap)

    def distances(self, rows: FloatArray) -> FloatArray:
        """Return (n,) the cut Mahalanobis distance of images, (n, s), to the nearest group."""
        offset = rows[:, np.newaxis] - self.centres
        squared = np.einsum("ngs,gst,ngt->ng", offset, self.precisions, offset).min(1)
        distances: FloatArray = np.minimum(np.sqrt(np.maximum(squared, 0)), self.farthest)
        return distances

    def mirrored(self, rows: FloatArray) -> FloatArray:
        """Return what the scalars of images (n, s) would be if these were inverted."""
        turned = rows.copy()
        turned[:, : len(TONES)] = 1 - rows[:, MIRRORED]
        if self.coloured:
            first = len(TONES)
            turned[:, first : first + 2] = _turned_shares(rows[:, 0], rows[:, first], rows[:, first + 1])
        return turned

    def excess(self, rows: FloatArray) -> float:
        """Return how much nearer a window's rows (IMAGES, k) are once mirrored; 0 if they are not near."""
        watched = rows[:, self.columns]
        near = self.distances(self.mirrored(watched)).mean()
        return float(max(self.distances(watched).mean() - near, 0.0)) if near <= self.usual else 0.0


@dataclass(frozen=True)
class Sensor:
    """Watches for faults that make images worthless.

    Attributes:
        names: of the data-layer scalars.
        dark: contrast below which an image is black; None if that is not watched.
        polarity: None if inversion is not watched.
    """

    names: tuple[str, ...]
    dark: float | None
    polarity: Polarity | None
    name: str = "sensor"

    @classmethod
    def of(cls, reference: Reference) -> Sensor:
        """Return the one that knows a reference's good images."""
        prefix = f"{Layer.DATA.value}."
        names = tuple(name.removeprefix(prefix) for name in reference.names if name.startswith(prefix))
        if not names:
            return cls((), None, None)
        matrix = np.stack([reference.scalars[prefix + name] for name in names], axis=1).astype(np.float64)
        dark = None
        if "contrast" in names:
            lowest = float(np.quantile(matrix[:, names.index("contrast")], LOWEST))
            dark = BLACK_CONTRAST * lowest if lowest > 0 else None
        return cls(names, dark, Polarity.of(names, matrix, reference.predicted))

    def initial(self) -> SensorState:
        """Return the state before the first image."""
        return SensorState()

    def update(self, state: SensorState, event: StatsMeasured) -> SensorState:
        """Return the state after a micro-batch that has the reference's scalars."""
        if not self.names:
            return state
        rows = np.array([[image.data[name] for name in self.names] for image in event.images])
        rows = rows.astype(np.float64).round(DIGITS)
        run, before = state.run, state.window.rows[-1] if state.window.rows else None
        for row in map(tuple, rows.tolist()):
            run = min(run + 1, IMAGES) if row == before else 1
            before = row
        window = state.window.extended([image.sequence for image in event.images], rows, IMAGES)
        after = SensorState(window=window, run=run)
        # Once a fault has filled the window its beginning is out of sight: what was said of it stays.
        since = {
            fault: state.since.get(fault, self._began(after, fault))
            for fault, (value, threshold) in self._faults(after).items()
            if value > threshold
        }
        return after.model_copy(update={"since": since})

    def readings(self, state: SensorState) -> Sequence[DetectorReading]:
        """Return one reading a watched fault, all of the data layer."""
        return [
            DetectorReading(
                detector=self.name,
                layer=Layer.DATA,
                statistic=fault,
                value=value,
                threshold=threshold,
                alarmed=value > threshold,
                since_sequence=state.since.get(fault) if value > threshold else None,
            )
            for fault, (value, threshold) in self._faults(state).items()
        ]

    def _faults(self, state: SensorState) -> Mapping[str, tuple[float, float]]:
        """Return watched fault → value and threshold; a window that is not full shows none."""
        full = len(state.window.rows) == IMAGES
        rows = np.array(state.window.rows)
        faults: dict[str, tuple[float, float]] = {}
        if self.dark is not None:
            faults["black"] = (float(self._dark(rows).mean()) if full else 0.0, MOST)
        if self.polarity is not None:
            faults["inverted"] = (self.polarity.excess(rows) if full else 0.0, self.polarity.threshold)
        if self.names:
            faults["frozen"] = (float(state.run), float(FROZEN_IMAGES))
        return faults

    def _dark(self, rows: FloatArray) -> NDArray[np.bool_]:
        contrast = rows[:, self.names.index("contrast")]
        return np.asarray(contrast < (self.dark or 0.0))

    def _began(self, state: SensorState, fault: str) -> int:
        """Return the first image of the window that shows a fault which it now has."""
        sequences = state.window.sequences
        if fault == "black":
            return sequences[int(self._dark(np.array(state.window.rows)).argmax())]
        return sequences[-state.run] if fault == "frozen" else sequences[0]


def _precision(rows: FloatArray) -> FloatArray:
    """Return the inverse covariance (s, s) of images, (n, s)."""
    spread = np.maximum(rows.std(0), SMALLEST_SPREAD)
    covariance = np.cov(rows.T) + np.diag((OWN_VARIANCE * spread) ** 2)
    precision: FloatArray = np.linalg.inv(covariance).astype(np.float64)
    return precision


def _windows(predicted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (m, IMAGES) rows of windows drawn from the reference: of all classes, and of each alone."""
    random = np.random.default_rng(0)
    everything = np.arange(len(predicted))
    pools = [everything, *(everything[predicted == label] for label in np.unique(predicted))]
    return np.concatenate([random.choice(pool, (WINDOWS, IMAGES)) for pool in pools if len(pool) >= IMAGES])


def _turned_shares(intensity: FloatArray, red_share: FloatArray, blue_share: FloatArray) -> FloatArray:
    """Return (n, 2) red's and blue's share of the light once every colour c is 1 − c.

    The mean colours follow from luminance and shares: intensity = total · (LUMINANCE · shares).
    """
    shares = np.stack([red_share, 1 - red_share - blue_share, blue_share], axis=1)
    total = intensity / (shares @ LUMINANCE.astype(np.float64))
    left = np.maximum(len(LUMINANCE) - total, SMALLEST_SPREAD)
    turned: FloatArray = (1 - shares[:, [0, 2]] * total[:, np.newaxis]) / left[:, np.newaxis]
    return turned
