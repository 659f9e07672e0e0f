"""Whose update moves against everybody else's.

Sites with other scanners and other patients still learn to read the same pictures: their updates lie at an
acute angle to each other (cosines of 0.2 to 0.4 were measured among sites that share hardly a class). One
that is turned round lies at an obtuse angle to all of them, however short it is cut. When everybody has
learned most of it, updates lie at right angles, and one round tells little: a site is judged by its last few.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medloop_model.federation.update import Update

FEWEST = 3
"""Updates among which there is a majority to believe."""

ROUNDS = 3
"""The last ones that a site is judged by."""


def agreement(updates: Sequence[Update]) -> NDArray[np.float64]:
    """The median cosine of each update (K,) with the others; a minority cannot move it past an honest one's.

    Args:
        updates: of the same shared weights; one that moves nothing, or is alone, agrees with none, at 0.
    """
    if len(updates) < 2:
        return np.zeros(len(updates))
    products_KK = np.zeros((len(updates), len(updates)))
    for name in updates[0].deltas:  # one tensor after the other: all of them at once need not fit
        deltas_KW = np.stack([update.deltas[name].ravel() for update in updates]).astype(np.float64)
        products_KK += deltas_KW @ deltas_KW.T
    lengths_K = np.sqrt(np.diagonal(products_KK))
    cosines_KK = products_KK / np.maximum(np.outer(lengths_K, lengths_K), 1e-30)
    others_KK = cosines_KK[~np.eye(len(updates), dtype=np.bool_)].reshape(len(updates), -1)
    medians_K: NDArray[np.float64] = np.median(others_KK, axis=1)
    return medians_K


def opposed(agreed: Sequence[Sequence[float]], least: float) -> tuple[bool, ...]:
    """Of each site, whether it agreed with the others by less than `least`, in the mean of its last rounds.

    None is among fewer than `FEWEST`, nor where half or more would be: there is no majority to believe then.

    Args:
        agreed: each site's `agreement` in its rounds so far, the present one last.
        least: a cosine.
    """
    against = tuple(bool(np.mean(rounds[-ROUNDS:]) < least) for rounds in agreed)
    believed = len(agreed) >= FEWEST and 2 * sum(against) < len(agreed)
    return against if believed else (False,) * len(agreed)
