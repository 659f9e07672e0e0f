"""FedProx: on its own data a site may learn, but not run away from what the sites share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def proximal_penalty(parameters: Iterable[tuple[str, Tensor]], anchor: Mapping[str, Tensor]) -> Tensor:
    """½·‖w − w_t‖² over the given parameters; μ is the caller's (Li et al., arXiv 1812.06127, eq. 2).

    Args:
        parameters: what is trained, by name.
        anchor: the round's base weights, w_t.
    """
    terms = [((parameter - anchor[name]) ** 2).sum() for name, parameter in parameters]
    return torch.stack(terms).sum() / 2 if terms else torch.zeros(())
