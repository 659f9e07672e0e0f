"""What a detector is: functions of arrays, over any number of streams at once.

The same functions follow one device in service and hundreds of simulated streams in calibration. What a
detector remembers is a dictionary of arrays of bounded size, one row a stream; `memory.py` packs them.

To add one: a file with a class of these members, a line in `DETECTORS` of `panel.py` and its name in
`settings.py`, and a test of its numbers;
the contract suite covers it by its name.

Shapes: s streams, b images of a micro-batch, w images of the recent window, k scalars, p components,
c classes, q channels of a detector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from medloop_schemas import Layer
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

Memory = Mapping[str, FloatArray]
"""What a detector remembers: arrays whose first axis is the stream."""


@dataclass(frozen=True)
class Channels:
    """What the columns of a detector's statistic watch.

    Attributes:
        layers: of each.
        statistics: of each: `noise`, `embedding`.
    """

    layers: tuple[Layer, ...]
    statistics: tuple[str, ...]

    @classmethod
    def named(cls, names: tuple[str, ...]) -> Channels:
        """Return the channels of names such as `data.noise`."""
        parts = [name.split(".", 1) for name in names]
        return cls(tuple(Layer(layer) for layer, _ in parts), tuple(statistic for _, statistic in parts))

    @classmethod
    def single(cls, layer: Layer, statistic: str) -> Channels:
        """Return the only channel of a detector."""
        return cls((layer,), (statistic,))

    @cached_property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Layer and statistic of each."""
        return tuple(zip(map(str, self.layers), self.statistics, strict=True))

    def then(self, later: Channels) -> Channels:
        """Return these channels followed by others."""
        return Channels(self.layers + later.layers, self.statistics + later.statistics)

    def columns_of(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the columns of names such as `data.noise`, as far as there are such."""
        return tuple(column for column, parts in enumerate(self.parts) if ".".join(parts) in names)

    def at(self, columns: Sequence[int]) -> Channels:
        """Return the channels of some columns."""
        return Channels(
            tuple(self.layers[column] for column in columns),
            tuple(self.statistics[column] for column in columns),
        )

    def worst_by_layer(self, severity: FloatArray) -> dict[Layer, int]:
        """Return, for each layer, the channel with the highest severity; the first of equals.

        Args:
            severity: (q,), comparable between channels.
        """
        worst: dict[Layer, int] = {}
        for channel, layer in enumerate(self.layers):
            if layer not in worst or severity[channel] > severity[worst[layer]]:
                worst[layer] = channel
        return worst


@dataclass(frozen=True)
class Images:
    """Images of s streams in time order, standardised against what the model's answer leads to expect.

    Attributes:
        scores: (s, b, k) standard scores of the scalars.
        features: (s, b, p) standard scores of the embedding's principal components.
        probabilities: (s, b, c) the model's answers.
    """

    scores: FloatArray
    features: FloatArray
    probabilities: FloatArray

    def __len__(self) -> int:
        return int(self.scores.shape[1])

    def then(self, later: Images, most: int) -> Images:
        """Return these images followed by others, cut to the latest `most`."""
        return Images(
            np.concatenate([self.scores, later.scores], 1)[:, -most:],
            np.concatenate([self.features, later.features], 1)[:, -most:],
            np.concatenate([self.probabilities, later.probabilities], 1)[:, -most:],
        )


@dataclass(frozen=True)
class Detector(ABC):
    """Watches streams of images.

    Attributes:
        name: what readings call it.
        channels: what its columns watch.
        thresholds: (q,), beyond which a channel alarms; infinite until the panel is calibrated.
    """

    name: str
    channels: Channels
    thresholds: FloatArray

    @abstractmethod
    def start(self, streams: int) -> Memory:
        """Return what is remembered before the first image of so many streams."""

    @abstractmethod
    def advance(self, memory: Memory, images: Images) -> Memory:
        """Return the memory after a micro-batch; the old one stays as it was."""

    @abstractmethod
    def statistics(self, memory: Memory, recent: Images) -> FloatArray:
        """Return (s, q), where each channel stands; zero while there is too little to judge by.

        Args:
            memory: after the latest micro-batch.
            recent: the latest images, the micro-batch included.
        """

    @abstractmethod
    def images_since(self, memory: Memory, recent: Images, channel: int) -> int:
        """Return how many of the first stream's latest images the change covers, at least one."""


def uncalibrated(channels: Channels) -> FloatArray:
    """Return thresholds that nothing exceeds."""
    return np.full(len(channels.layers), np.inf)
