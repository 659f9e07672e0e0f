"""Bets against the reference's ranks, valid at any time: a Shiryaev-Roberts e-detector (Shin et al. 2022).

With u_t the mid-rank of an image's score among the reference's, between 0 and 1, a bet that it is high on
average multiplies its stake by 1 + λ (u_t − ½ − τ), one that it is low by 1 − λ (u_t − ½ + τ), with λ below
1 / (½ + τ) so that no stake is ever lost whole (Waudby-Smith & Ramdas 2024). A bet begins with every image,
M_t = (M_{t−1} + 1) (1 ± λ …), and a layer's M_t is the mean over its scalars (the embedding's components),
over high and low and over several λ. The statistic is log(1 + M_t).

Guarantee. Null: given all images before, ½ − τ ≤ E u_t ≤ ½ + τ for every scalar that is watched, however
scalars depend on each other. Then M_t − t is a supermartingale, and the images N until M_t ≥ c have E N ≥ c,
for every c and without calibration; until the first of q layers is there, E N ≥ c / q. Images drawn
independently from the reference have E u_t = ½ exactly, ties included; those of the population that the
reference is a sample of are off by some 0.3 / √n, for which there is τ. Neither need hold for patients that
arrive together.

As drift is to be told from these too, the panel's calibration sets the threshold, on streams that hold them,
and not log(1 + c). In service that calibration's contract counts; the guarantee is the statistic's own.

The decision layer, which follows the mix of classes, is not bet on. Stakes stop a little above the threshold
(less than M_t keeps the guarantee), so that an alarm ends soon after its cause does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from medloop_schemas import Layer
from numpy.typing import NDArray

from medloop_services.drift_detection.detectors.detector import (
    Channels,
    Detector,
    FloatArray,
    Images,
    Memory,
    uncalibrated,
)
from medloop_services.drift_detection.detectors.mewma import varies

BETS = (0.25, 0.5, 0.9)
"""Of the largest λ: without tolerance they gain most from shifts of about 0.15, 0.3 and from 0.5 standard
deviations on."""

HEADROOM = 0.5
"""Of the statistic above its threshold."""

MOST = 80.0
"""Of the statistic, threshold or not: stakes are remembered as float32."""


@dataclass(frozen=True)
class EProcess(Detector):
    """The e-detector, a channel a layer.

    Attributes:
        columns: of the scores that are watched, before all components.
        layer_of: (v,), the channel of each of them and of each component.
        ranked: (n, v), the reference's values in ascending order.
        tolerance: τ.
    """

    columns: tuple[int, ...]
    layer_of: NDArray[np.int64]
    ranked: FloatArray
    tolerance: float

    @classmethod
    def fitted(cls, scalars: Channels, reference: Images, tolerance: float) -> EProcess:
        """Return one that ranks images among a reference's.

        Args:
            scalars: names of the scores.
            reference: n images as one stream.
            tolerance: τ, how far off ½ a mean rank may be.
        """
        columns = tuple(
            column
            for column, layer in enumerate(scalars.layers)
            if layer is not Layer.DECISION and varies(reference.scores[0, :, column])
        )
        watched = [scalars.layers[column] for column in columns]
        watched += [Layer.FEATURE] * reference.features.shape[2]
        layers = tuple(dict.fromkeys(watched))
        channels = Channels(layers, ("ranks",) * len(layers))
        return cls(
            "e-process",
            channels,
            uncalibrated(channels),
            columns,
            np.array([layers.index(layer) for layer in watched]),
            np.sort(_values(reference, columns)[0], 0),
            tolerance,
        )

    def start(self, streams: int) -> Memory:
        """Return stakes of nothing: the first bets begin with the first image."""
        return {"stakes": np.zeros((streams, 2 * len(BETS), len(self.layer_of)))}

    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return the stakes after a micro-batch."""
        stakes = memory["stakes"]
        factors = self._factors(images)
        most = np.expm1(np.minimum(self.thresholds + HEADROOM, MOST))
        for index in range(len(images)):
            stakes = (stakes + 1) * factors[:, index]
            share = most / np.maximum(self._mixture(stakes), most)
            if share.min() < 1:
                stakes = stakes * share[:, np.newaxis, self.layer_of]
        return {"stakes": stakes}

    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return log(1 + M) of each layer."""
        return np.log1p(self._mixture(memory["stakes"]))

    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return how many recent images the bet that won most would best have begun with."""
        stakes = np.where(self.layer_of == channel, memory["stakes"][0], -1)
        bet, column = np.unravel_index(stakes.argmax(), stakes.shape)
        gains = np.log(self._factors(recent)[0, :, bet, column])
        since_each = gains[::-1].cumsum()
        return 1 + int(since_each.argmax())

    def _factors(self, images: Images) -> FloatArray:
        """Return what each image multiplies stakes by, (s, b, bets, v): those on high ranks come first."""
        above = self._ranks(_values(images, self.columns))[:, :, np.newaxis] - 0.5
        bets = np.array(BETS)[:, np.newaxis] / (0.5 + self.tolerance)
        gains = np.concatenate([bets * (above - self.tolerance), bets * (-above - self.tolerance)], 2)
        factors: FloatArray = 1 + gains
        return factors

    def _ranks(self, values: FloatArray) -> FloatArray:
        """Return the mid-ranks of (s, b, v), between 0 and 1."""
        ranks = np.empty_like(values)
        for column, ranked in enumerate(self.ranked.T):
            of_column = values[..., column]
            below, up_to = np.searchsorted(ranked, of_column), np.searchsorted(ranked, of_column, "right")
            ranks[..., column] = (below + up_to) / (2 * len(ranked))
        return ranks

    def _mixture(self, stakes: FloatArray) -> FloatArray:
        """Return M of each layer, (s, q)."""
        member = self.layer_of[:, np.newaxis] == np.arange(len(self.thresholds))
        mixture: FloatArray = stakes.mean(1) @ (member / member.sum(0))
        return mixture


def _values(images: Images, columns: tuple[int, ...]) -> FloatArray:
    return np.concatenate([images.scores[..., list(columns)], images.features], 2)
