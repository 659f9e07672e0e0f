"""A network at work: weights, their moving average, optimiser and random generator, set from a state.

A state's tensors are never changed: what is set here and what is read from here are copies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from medloop_model.network import BiTMedViT
from medloop_model.training.adam import AdamW
from medloop_model.training.flat import views
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
        self._optimiser.weights.copy_(state.latent)
        self._optimiser.first.copy_(state.first)
        self._optimiser.second.copy_(state.second)
        self._optimiser.steps = state.steps
        self._average.copy_(state.average)
        self.generator.set_state(state.generator)

    def put_away(self, state: LearnerState) -> LearnerState:
        """Return a state with everything as it stands here."""
        return replace(
            state,
            latent=self._optimiser.weights.clone(),
            average=self._average.clone(),
            first=self._optimiser.first.clone(),
            second=self._optimiser.second.clone(),
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
        """Whether the weights that move are, all together, of finite length."""
        return math.isfinite(float(torch.linalg.vector_norm(self._optimiser.weights)))

    def by_name(self, flat: Tensor) -> dict[str, Tensor]:
        """A state's `latent` or `average` as the network's parameters; the memory is the same."""
        return dict(zip(self.moving, views(flat, list(self.moving.values())), strict=True))
