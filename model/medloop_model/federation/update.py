"""What a site sends: how its shared weights moved from a base model, on how many images, and what mattered.

Norms and scales stay at home by default, since they are what tells one scanner from another: the idea of
FedBN (Li et al., arXiv 2102.07623), whose batch norms a BiTMedViT has in its RMS norms, its LayerNorm and its
linears' gains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medloop_model.checkpoint import ModelPackage, Tensors
from medloop_model.errors import ShapeError
from medloop_model.federation.errors import CorruptUpdate

MOST = float(np.finfo(np.float16).max)
"""Of a number in a package's file."""

_STAYS_AT_HOME = ("norm", "gain")


@dataclass(frozen=True)
class Update:
    """How one site's shared weights moved.

    Args:
        base_sha256: `shared_digest` of the model that was trained.
        samples: labelled images behind it, at least 1.
        deltas: trained minus base by latent name, float32.
        fisher: diagonal Fisher information of the same names, float32, or empty.
    """

    base_sha256: str
    samples: int
    deltas: Tensors
    fisher: Tensors = field(default_factory=dict)

    @property
    def norm(self) -> float:
        """‖Δ‖₂ over all deltas."""
        squares = [float(np.square(delta, dtype=np.float64).sum()) for delta in self.deltas.values()]
        return float(np.sqrt(sum(squares)))

    def clipped(self, most_norm: float) -> Update:
        """Δ · min(1, most / ‖Δ‖₂): a site may pull in any direction, not arbitrarily far.

        Norm clipping bounds what a poisoned update can do (Sun et al., arXiv 1911.07963, §5).
        """
        norm = self.norm
        if norm <= most_norm:
            return self
        shrunk = {name: delta * np.float32(most_norm / norm) for name, delta in self.deltas.items()}
        return replace(self, deltas=shrunk)


def shared(tensors: Mapping[str, NDArray[Any]], *, norms: bool = False) -> Tensors:
    """The tensors that sites share, in the order of their names.

    Args:
        tensors: by latent name.
        norms: whether norms and scales are shared as well.
    """
    return {name: tensors[name] for name in sorted(tensors) if norms or not stays_at_home(name)}


def stays_at_home(name: str) -> bool:
    """Whether a latent weight is a norm or a scale: `norm.weight`, `blocks.0.fc1.gain`, …"""
    return any(part in _STAYS_AT_HOME for part in name.split("."))


def shared_digest(latent: Mapping[str, NDArray[Any]], *, norms: bool = False) -> str:
    """SHA-256 of the shared weights in fp16: what sites that keep their own norms have in common."""
    content = hashlib.sha256()
    for name, tensor in shared(latent, norms=norms).items():
        content.update(f"{name}{tensor.shape}".encode())
        content.update(np.ascontiguousarray(tensor, "<f2").tobytes())
    return content.hexdigest()


def difference(base: ModelPackage, trained: ModelPackage, samples: int, *, norms: bool = False) -> Update:
    """A site's update: what training changed.

    Args:
        base, trained: with their latent weights; the trained one may have its Fisher information.
        samples: labelled images that it was trained on.
        norms: whether norms and scales are shared as well.

    Raises:
        ShapeError: the two differ in more than values; a new class has to be known to all sites first.
        CorruptUpdate: a weight is a NaN or an infinity.
    """
    deltas = {}
    before = shared(base.latent, norms=norms)
    after = shared(trained.latent, norms=norms)
    if before.keys() != after.keys():
        raise ShapeError(f"base and trained model differ in {sorted(before.keys() ^ after.keys())}")
    for name, weight in after.items():
        if weight.shape != before[name].shape:
            raise ShapeError(
                f"{name} is {weight.shape} after training and was {before[name].shape}; "
                "sites can be merged once all of them know the new class"
            )
        deltas[name] = weight.astype(np.float32) - before[name].astype(np.float32)
    fisher = {name: trained.fisher[name].astype(np.float32) for name in after if name in trained.fisher}
    update = Update(shared_digest(base.latent, norms=norms), samples, deltas, fisher)
    require_finite(update)
    return update


def require_finite(update: Update) -> None:
    """Check every number.

    Raises:
        CorruptUpdate: one is a NaN, an infinity, or more than a model's file can hold.
    """
    for part, tensors in (("delta", update.deltas), ("Fisher information", update.fisher)):
        for name, tensor in tensors.items():
            if not (np.abs(tensor) <= MOST).all():
                raise CorruptUpdate(f"the {part} of {name} holds a NaN or more than {MOST:,.0f}; train again")
