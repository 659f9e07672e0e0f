"""A network at work: weights, their moving average, optimiser and random generator, set from a state.

A state's tensors are never changed: what is set here are copies, and what was read from here is not touched
again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from medloop_model.network import BiTMedViT
from medloop_model.training.adam import AdamW
from medloop_model.training.flat import flattened, views
from medloop_model.training.learner_state import LearnerState
from medloop_model.training.plan import TrainingPlan


class Workbench:
    """Where one learner's steps are taken.

    Args:
        network: whose weights move.
        moving: those that do, by name.
        plan: learning rate, warm-up and average.
    """

    def __init__(self, network: BiTMedViT, moving: Mapping[str, nn.Parameter], plan: TrainingPlan) -> None:
        self.network = network
        self.moving = moving
        self.plan = plan
        self.generator = torch.Generator()
        self._optimiser = AdamW(moving.values())
        self._average = self._optimiser.weights.clone()

    def lay_out(self, state: LearnerState) -> None:
        """Set everything to where a state stands."""
        for name, parameter in self.moving.items():
            parameter.data = state.latent[name]
        self._optimiser = AdamW(self.moving.values())  # in memory of its own
        self._optimiser.first = self._flat(state.first)
        self._optimiser.second = self._flat(state.second)
        self._optimiser.steps = state.steps
        self._average = self._flat(state.average)
        self.generator.set_state(state.generator)

    def put_away(self, state: LearnerState) -> LearnerState:
        """Return a state with everything as it stands here."""
        return replace(
            state,
            latent=self._by_name(self._optimiser.weights),
            average=self._by_name(self._average),
            first=self._by_name(self._optimiser.first),
            second=self._by_name(self._optimiser.second),
            steps=self._optimiser.steps,
            generator=self.generator.get_state(),
        )

    def descend(self, loss: Tensor) -> float:
        """Take one optimiser step; return the loss, or not a number where there is no finite way down."""
        self._optimiser.zero_gradients()
        loss.backward()  # type: ignore[no-untyped-call]
        found = loss.item()
        risen = min(1.0, (self._optimiser.steps + 1) / max(self.plan.warm_up_steps, 1))
        if not (math.isfinite(found) and self._optimiser.step(self.plan.learning_rate * risen)):
            return math.nan
        # The share of the past grows with the steps, so that the base model itself is soon forgotten.
        steps = self._optimiser.steps
        self._average.lerp_(self._optimiser.weights, 1 - min(self.plan.average_decay, steps / (steps + 9)))
        return found

    def is_finite(self) -> bool:
        """Whether every weight that moves is a finite number."""
        return bool(torch.isfinite(self._optimiser.weights).all())

    def _flat(self, by_name: Mapping[str, Tensor]) -> Tensor:
        return flattened(by_name[name] for name in self.moving)

    def _by_name(self, flat: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.moving, views(flat, list(self.moving.values())), strict=True))
