"""Label policies: how readers come to call the same images something else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medloop_services.replay.split import Index, Pixels, Split

Policy = Callable[[Split], Index]
"""Images under their old labels → (N,) int64 new labels."""


def central_intensity(images: Pixels) -> NDArray[np.float64]:
    """Return (N,) the mean grey of the central half in height and width: 14×14 of 28×28."""
    height, width = images.shape[1:3]
    centre = images[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    means: NDArray[np.float64] = centre.reshape(len(images), -1).mean(axis=1)
    return means


def raised_bar(training: Split, share: float) -> Policy:
    """Return the policy that calls faint positives (class 1) negative (class 0).

    Faint is a central intensity under the `share` quantile of the training images' positives.
    """
    threshold = float(np.quantile(central_intensity(training.images[training.labels == 1]), share))

    def relabel(split: Split) -> Index:
        faint = (split.labels == 1) & (central_intensity(split.images) < threshold)
        return np.where(faint, 0, split.labels)

    return relabel


def swapped_names(first: int, second: int) -> Policy:
    """Return the policy under which two classes swap names."""

    def relabel(split: Split) -> Index:
        is_first, is_second = split.labels == first, split.labels == second
        return np.where(is_first, second, np.where(is_second, first, split.labels))

    return relabel
