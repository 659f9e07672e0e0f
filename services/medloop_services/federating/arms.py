"""What is compared: each site alone, all images pooled, and rounds of a federation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from medloop_model.checkpoint import ModelPackage, Tensors
from medloop_model.federation.compression import compress, decompress
from medloop_model.federation.merging import MergeSettings, merge, with_merged
from medloop_model.federation.proximal import with_proximal_term
from medloop_model.federation.update import Update, difference
from medloop_model.training.plan import TrainingPlan

from medloop_services.federating.hospitals import Hospital, pooled
from medloop_services.federating.local_training import LocalTraining
from medloop_services.replay.split import Split

POISON = -10.0
"""A poisoned site sends its update turned round and ten times as long."""


@dataclass(frozen=True, slots=True)
class Arms:
    """Trains what is compared, all with the same number of passes over the images.

    Attributes:
        base: what every site starts with.
        hospitals: the sites.
        plan: how a site trains.
        rounds: passes over a site's images, with a merge after each in a federation.
        training: does it.
    """

    base: ModelPackage
    hospitals: Sequence[Hospital]
    plan: TrainingPlan
    rounds: int
    training: LocalTraining

    def alone(self, hospital: Hospital) -> ModelPackage:
        """A site's own model, from its own images."""
        return self._passes(hospital.training, hospital.name)

    def pooled(self) -> ModelPackage:
        """What could be had if images were allowed to leave."""
        return self._passes(pooled(self.hospitals), "pooled")

    def federated(
        self, settings: MergeSettings, *, poisoned: int = 0, proximal: float = 0.0
    ) -> list[ModelPackage]:
        """Every site's model after all rounds, in the order of the hospitals.

        Args:
            settings: of the merge.
            poisoned: so many sites, the first ones, send their update turned round.
            proximal: μ of FedProx, 0 for training as everywhere else.
        """
        own = [self.base for _ in self.hospitals]
        residuals: dict[str, Tensors] = {}
        agreed: dict[str, tuple[float, ...]] = {}
        for number in range(self.rounds):
            plan = self._plan(number)
            bases = [with_proximal_term(mine, plan, proximal) if proximal else (mine, plan) for mine in own]
            trained = [
                self.training.trained(base, hospital.training, plan, hospital.name)
                for (base, plan), hospital in zip(bases, self.hospitals, strict=True)
            ]
            updates: dict[str, Update] = {}
            for place, hospital in enumerate(self.hospitals):
                update = difference(own[place], trained[place], len(hospital.training), norms=settings.norms)
                if not update.norm:
                    continue  # images of one class alone teach nothing
                packed = compress(
                    turned(update) if place < poisoned else update, residuals.get(hospital.name)
                )
                residuals[hospital.name] = packed.residual
                updates[hospital.name] = decompress(packed.payload, update.deltas)
            earlier = [agreed.get(name, ()) for name in updates]
            merged = merge(own[0], list(updates.values()), settings, earlier)
            for name, before, now in zip(updates, earlier, merged.agreement, strict=True):
                agreed[name] = (*before, now)
            own = [with_merged(mine, merged, {"round": number + 1}) for mine in trained]
        return own

    def _passes(self, images: Split, name: str) -> ModelPackage:
        package = self.base
        for number in range(self.rounds):
            package = self.training.trained(package, images, self._plan(number), name)
        return package

    def _plan(self, number: int) -> TrainingPlan:
        return replace(self.plan, seed=self.plan.seed + number)


def turned(update: Update) -> Update:
    """What a poisoned site sends instead of its update."""
    return replace(update, deltas={name: delta * np.float32(POISON) for name, delta in update.deltas.items()})
