"""From a round's updates to a merged model: leave out who moves against all others, clip, aggregate, pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medloop_model.architecture import Architecture
from medloop_model.checkpoint import ModelPackage, Tensors
from medloop_model.federation.aggregators import Aggregator, soft_vote, trimmed_mean, weighted_mean
from medloop_model.federation.agreement import agreement, opposed
from medloop_model.federation.update import Update, shared
from medloop_model.training.ewc import MOST_FISHER
from medloop_model.training.export import export_package, network_from

_LINEARS = ("qkv", "out", "fc1", "fc2")


@dataclass(frozen=True)
class MergeSettings:
    """How updates are merged.

    Args:
        aggregator: by default a soft vote on ternary codes and a trimmed mean of what has none, which a
            poisoned site moves least (`medloop simulate --sites 5 --poisoned 1` shows all three).
        least_agreement: a site's update is left out if its median cosine with the others', in the mean of
            the site's last rounds, is less.
        trimmed: β, the share of sites left out at either end.
        clip: an update's norm is at most so many times the round's median norm.
        most_samples: a site counts as if it had at most so many images, whatever it says.
        norms: whether norms and scales are shared as well.
    """

    aggregator: Aggregator = Aggregator.SOFT_VOTE
    least_agreement: float = -0.05
    trimmed: float = 0.2
    clip: float = 1.5
    most_samples: int = 4096
    norms: bool = False


@dataclass(frozen=True)
class Merged:
    """What sites have learned together.

    Args:
        latent: the shared weights, fp16 by latent name.
        fisher: their Fisher information, fp16, or empty.
        clipped: of each update, whether it was longer than it may be.
        agreement: of each update, its median cosine with the others.
        opposed: of each update, whether it was left out, since its site moves against the others.
    """

    latent: Tensors
    fisher: Tensors = field(default_factory=dict)
    clipped: tuple[bool, ...] = ()
    agreement: tuple[float, ...] = ()
    opposed: tuple[bool, ...] = ()


def merge(
    base: ModelPackage,
    updates: Sequence[Update],
    settings: MergeSettings,
    earlier: Sequence[Sequence[float]] = (),
) -> Merged:
    """Merge the updates of a round, at least one.

    The clip follows the round's median norm, and likewise its median number of images, so that it needs no
    tuning (after Andrew et al., arXiv 1905.03871, who let it follow a quantile). Of an even number the lower
    one of the middle two counts: of two sites a liar would else clip itself by its own length. Fisher
    information is merged by weight (as the weighted mean), each number being `MOST_FISHER` at most.

    Args:
        base: with its latent weights, which every update starts from.
        updates: of the base's shared weights; the order doesn't matter.
        settings: how.
        earlier: each update's site's `agreement` in its rounds before, or nothing of any.
    """
    agreed = agreement(updates).tolist()
    rounds = [(*before, now) for before, now in zip(earlier or [()] * len(updates), agreed, strict=True)]
    against = opposed(rounds, settings.least_agreement)
    joining = [update for update, out in zip(updates, against, strict=True) if not out]
    most_norm = settings.clip * _lower_median([update.norm for update in joining])
    clipped = [update.clipped(most_norm) for update in joining]
    # A site says itself how many images it has: the same bound keeps a liar from deciding a round.
    most_samples = min(settings.most_samples, settings.clip * _lower_median([u.samples for u in joining]))
    counts = [min(float(update.samples), most_samples) for update in joining]
    before = {
        name: weight.astype(np.float32) for name, weight in shared(base.latent, norms=settings.norms).items()
    }
    after = _aggregated(before, clipped, counts, settings, base.architecture)
    # Normalised Fisher information has no larger number; a made-up one would hold a weight fast everywhere.
    fishers = [
        {name: values.clip(max=MOST_FISHER) for name, values in update.fisher.items()} for update in joining
    ]
    fisher = weighted_mean(fishers, counts) if all(fishers) else {}
    return Merged(
        latent={name: weight.astype(np.float16) for name, weight in after.items()},
        fisher={name: values.astype(np.float16) for name, values in fisher.items()},
        clipped=tuple(
            update.norm > most_norm and not out for update, out in zip(updates, against, strict=True)
        ),
        agreement=tuple(agreed),
        opposed=against,
    )


def _lower_median(values: Sequence[float]) -> float:
    return float(np.quantile(values, 0.5, method="lower"))


def with_merged(own: ModelPackage, merged: Merged, provenance: Mapping[str, Any]) -> ModelPackage:
    """A site's model with the merged weights: its own norms and scales stay, packed again.

    Args:
        own: the site's trained model, with its latent weights; its reference no longer holds and is left out.
        merged: what it shares with the others.
        provenance: where the result comes from.

    Raises:
        UnsupportedArchitecture: the merged weights are of another network.
    """
    network = network_from(replace(own, latent={**own.latent, **merged.latent}))
    # A part of it would be of no use: what holds some weights has to know all.
    fisher = {**own.fisher, **merged.fisher} if own.fisher else {}
    return export_package(network, provenance, fisher=fisher)


def _aggregated(
    before: Tensors,
    updates: Sequence[Update],
    counts: Sequence[float],
    settings: MergeSettings,
    architecture: Architecture,
) -> Tensors:
    deltas = [update.deltas for update in updates]
    if settings.aggregator is Aggregator.WEIGHTED_MEAN:
        return _moved(before, weighted_mean(deltas, counts))
    after = _moved(before, trimmed_mean(deltas, settings.trimmed))
    if settings.aggregator is Aggregator.SOFT_VOTE:
        for name in _ternary_weights(architecture):
            after[name] = soft_vote([before[name] + delta[name] for delta in deltas], counts)
    return after


def _moved(before: Tensors, deltas: Tensors) -> Tensors:
    return {name: before[name] + deltas[name] for name in before}


def _ternary_weights(architecture: Architecture) -> list[str]:
    """Latent weights that are rounded to ternary codes by their absmean as a whole."""
    ternary = _LINEARS if architecture.ternary_attention else ("fc1", "fc2")
    return [f"blocks.{block}.{linear}.weight" for block in range(architecture.depth) for linear in ternary]
