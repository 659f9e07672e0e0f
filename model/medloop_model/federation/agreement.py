"""Whose update moves against everybody else's.

Sites with other scanners and other patients still learn to read the same pictures: their updates lie at an
acute angle to each other (cosines of 0.2 to 0.4 were measured among sites that share hardly a class). One
that is turned round lies at an obtuse angle to all of them, however short it is cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medloop_model.federation.update import Update

FEWEST = 3
"""Updates among which there is a majority to believe."""


def agreement(updates: Sequence[Update]) -> NDArray[np.float64]:
    """The median cosine of each update (K,) with the others; a minority cannot move it past an honest one's.

    Args:
        updates: of the same shared weights, at least two; one that moves nothing agrees with none, at 0.
    """
    products_KK = np.zeros((len(updates), len(updates)))
    for name in updates[0].deltas:  # one tensor after the other: all of them at once need not fit
        deltas_KW = np.stack([update.deltas[name].ravel() for update in updates]).astype(np.float64)
        products_KK += deltas_KW @ deltas_KW.T
    lengths_K = np.sqrt(np.diagonal(products_KK))
    cosines_KK = products_KK / np.maximum(np.outer(lengths_K, lengths_K), 1e-30)
    others_KK = cosines_KK[~np.eye(len(updates), dtype=np.bool_)].reshape(len(updates), -1)
    medians_K: NDArray[np.float64] = np.median(others_KK, axis=1)
    return medians_K


def opposed(updates: Sequence[Update], least: float) -> tuple[bool, ...]:
    """Of each update, whether it agrees with the others by less than `least`.

    None is among fewer than `FEWEST`, nor where half or more would be: there is no majority to believe then.
    """
    nobody = (False,) * len(updates)
    if len(updates) < FEWEST:
        return nobody
    against = tuple(bool(cosine < least) for cosine in agreement(updates))
    return nobody if 2 * sum(against) >= len(updates) else against
