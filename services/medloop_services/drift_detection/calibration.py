"""Sets the thresholds of a whole panel by one number: images between its false alarms.

Streams are drawn from the reference as images come in service: from study to study, and half of them with
classes that stick together, in any mix. The panel that judges them is fitted to one resample of the reference
(Efron 1979), and they are made of another: both the reference and the patients of a ward are samples, and
that they differ is no drift.

The rule that joins the detectors: each statistic is divided by its usual peak, each detector by its usual
worst quotient, and the panel alarms where any of them exceeds one factor. Peaks are those of streams of
STREAM_IMAGES images, usual is their USUAL quantile, and a factor keeps the contract if it leaves as many
streams quiet as a panel that alarms once in N images: exp(−STREAM_IMAGES / N). It is to keep it for KEPT of
the resamples, on independent and on sticky streams by themselves: one reference is all that a model has, and
the contract is to hold for it, not for the average of those that it might have had.

Shapes: n reference images, s streams, t images of a stream, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from medloop_model.statistics import Reference
from numpy.typing import NDArray

from medloop_services.drift_detection.detectors.detector import Detector, FloatArray, Images

IntArray = NDArray[np.int64]

RESAMPLES = 16
STREAMS = 16
"""Of each resample: the first half independent, the others with classes that stick together."""

STREAM_IMAGES = 2048
STEP = 16
"""Images between two looks: a micro-batch."""

USUAL = 0.9

KEPT = 0.8
"""Share of the resamples for which the contract is kept."""

PERSISTENCE = 0.97
"""How often the next image is of the same class where classes stick together: one ward's patients arrive
together (a lag-1 agreement as in the correlated streams of `medloop bench drift`)."""


class Uncalibrated(Protocol):
    """Detectors without thresholds, and how they see a reference's images."""

    @property
    def detectors(self) -> Sequence[Detector]:
        """What is to have thresholds."""

    @property
    def window(self) -> int:
        """Recent images that are kept."""

    def seen(self, reference: Reference) -> Images:
        """Return the images of a reference, standardised, as one stream."""


def thresholds(
    reference: Reference, fit: Callable[[Reference], Uncalibrated], images_per_alarm: float, seed: int
) -> dict[str, FloatArray]:
    """Return the thresholds of each detector by its name, (q,).

    Args:
        reference: what a stationary stream is made of.
        fit: makes a panel of a reference.
        images_per_alarm: mean time between false alarms of the whole panel; run lengths are taken to be
            exponential.
        seed: of resamples and streams.
    """
    random = np.random.default_rng(seed)
    runs = [_peaks_of_resample(reference, fit, random) for _ in range(RESAMPLES)]
    peaks = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
    usual = {name: _usual(values) for name, values in peaks.items()}
    worst = np.stack([(values / usual[name]).max(1) for name, values in peaks.items()], 1)
    level = np.maximum(np.quantile(worst, USUAL, axis=0), 1)  # a detector may never move at all
    quotients = (worst / level).max(1).reshape(RESAMPLES, 2, STREAMS // 2)
    factors = np.quantile(quotients, np.exp(-STREAM_IMAGES / images_per_alarm), axis=2)
    factor = np.quantile(factors, KEPT, axis=0).max()
    return {name: usual[name] * level[place] * factor for place, name in enumerate(usual)}


def draw_stream(
    classes: IntArray, labels: IntArray, studies: IntArray, random: np.random.Generator
) -> IntArray:
    """Return (s, t) rows of a reference: of the wanted classes, but a study that has begun is shown whole.

    Args:
        classes: (s, t), the class that a new study is to be of.
        labels: (n,), the reference's classes; each wanted one is among them.
        studies: (n,).
        random: the source.
    """
    following = _following(studies)
    starts = {
        label: np.flatnonzero((labels == label) & _first_of_study(studies)) for label in np.unique(labels)
    }
    fresh = np.empty(classes.shape, np.int64)
    for label in np.unique(classes):
        places = classes == label
        first = starts[label] if len(starts[label]) else np.flatnonzero(labels == label)
        fresh[places] = random.choice(first, int(places.sum()))
    rows = fresh
    for image in range(1, classes.shape[1]):
        continued = following[rows[:, image - 1]]
        rows[:, image] = np.where(continued >= 0, continued, fresh[:, image])
    return rows


def draw_classes(shares: FloatArray, persistence: FloatArray, random: np.random.Generator) -> IntArray:
    """Return (s, t) classes, each stream's as frequent as its shares say.

    A class is kept, or drawn anew from the shares, such that neighbours are alike as often as persistence
    says, where that is more often than by chance.

    Args:
        shares: (s, t, c), how often each class is shown at each moment; they sum to 1.
        persistence: (s,), probability that neighbours are alike; 0 for independent images.
        random: the source.
    """
    streams, images = shares.shape[:2]
    fresh: IntArray = (random.random((streams, images, 1)) > shares.cumsum(2)[..., :-1]).sum(2)
    # Alike by chance: Σ π². Keeping with probability ρ makes neighbours alike ρ + (1 − ρ) Σ π² of the time.
    alike = (shares**2).sum(2)
    stays = np.maximum(persistence[:, np.newaxis] - alike, 0) / np.maximum(1 - alike, 1e-12)
    renewed = random.random((streams, images)) >= stays
    renewed[:, 0] = True
    latest = np.maximum.accumulate(np.where(renewed, np.arange(images), 0), 1)
    return np.take_along_axis(fresh, latest, 1)


def _peaks_of_resample(
    reference: Reference, fit: Callable[[Reference], Uncalibrated], random: np.random.Generator
) -> dict[str, FloatArray]:
    """Return the peaks of each detector's channels in each stream, (STREAMS, q)."""
    panel = fit(_resampled(reference, random))
    served = _resampled(reference, random)
    rows = draw_stream(_stationary_classes(served, random), served.labels, served.studies, random)
    seen = panel.seen(served)
    memories = {detector.name: detector.start(STREAMS) for detector in panel.detectors}
    peaks = {detector.name: np.zeros((STREAMS, len(detector.thresholds))) for detector in panel.detectors}
    recent = _shown(seen, rows[:, :0])
    for start in range(0, STREAM_IMAGES, STEP):
        images = _shown(seen, rows[:, start : start + STEP])
        recent = recent.then(images, panel.window)
        for detector in panel.detectors:
            memory = memories[detector.name] = detector.advance(memories[detector.name], images)
            statistics = detector.statistics(memory, recent)
            np.maximum(peaks[detector.name], statistics, out=peaks[detector.name])
    return peaks


def _resampled(reference: Reference, random: np.random.Generator) -> Reference:
    """Return as many studies, drawn with replacement; one that is drawn twice is two studies."""
    found, members = np.unique(reference.studies, return_inverse=True)
    order = np.argsort(members, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(members))[:-1])
    drawn = [rows[study] for study in random.integers(0, len(found), len(found))]
    studies = np.repeat(np.arange(len(drawn)), [len(images) for images in drawn])
    return replace(reference.select(np.concatenate(drawn)), studies=studies)


def _stationary_classes(reference: Reference, random: np.random.Generator) -> IntArray:
    known = np.unique(reference.labels)
    own = np.array([(reference.labels == label).mean() for label in known])
    mixes = np.vstack([np.tile(own, (STREAMS // 2, 1)), random.dirichlet(np.ones(len(known)), STREAMS // 2)])
    persistence = np.repeat([0.0, PERSISTENCE], STREAMS // 2)
    shares = np.broadcast_to(mixes[:, np.newaxis], (STREAMS, STREAM_IMAGES, len(known)))
    return known[draw_classes(shares, persistence, random)]


def _shown(images: Images, rows: IntArray) -> Images:
    return Images(images.scores[0][rows], images.features[0][rows], images.probabilities[0][rows])


def _usual(peaks: FloatArray) -> FloatArray:
    """Return the usual peak of each channel, (q,); one that never moves in the reference has the median."""
    usual = np.quantile(peaks, USUAL, axis=0)
    floor = max(float(np.median(usual)), 1e-3)
    return np.maximum(usual, floor)


def _first_of_study(studies: IntArray) -> NDArray[np.bool_]:
    first = np.zeros(len(studies), np.bool_)
    first[np.unique(studies, return_index=True)[1]] = True
    return first


def _following(studies: IntArray) -> IntArray:
    """Return (n,), the row of the next image of the same study, -1 after its last."""
    following = np.full(len(studies), -1)
    order = np.argsort(studies, kind="stable")
    same = studies[order][1:] == studies[order][:-1]
    following[order[:-1][same]] = order[1:][same]
    return following
