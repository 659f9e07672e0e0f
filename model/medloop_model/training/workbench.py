"""A network at work: weights, their moving average, optimiser and random generator, set from a state.

A state's tensors are never changed: what is set here are copies, and what was read from here is not touched
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from medloop_model.network import BiTMedViT
from medloop_model.training.adam import AdamW
from medloop_model.training.learner_state import LearnerState
from medloop_model.training.plan import TrainingPlan

_LONGEST_GRADIENT = 1.0


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
        self._average: dict[str, Tensor] = {}

    def lay_out(self, state: LearnerState) -> None:
        """Set everything to where a state stands."""
        for name, parameter in self.moving.items():
            parameter.data = state.latent[name].clone()
        self._average = {name: state.average[name].clone() for name in self.moving}
        self._optimiser.first = [state.first[name].clone() for name in self.moving]
        self._optimiser.second = [state.second[name].clone() for name in self.moving]
        self._optimiser.steps = state.steps
        self.generator.set_state(state.generator)

    def put_away(self, state: LearnerState) -> LearnerState:
        """Return a state with everything as it stands here."""
        return replace(
            state,
            latent={name: parameter.detach() for name, parameter in self.moving.items()},
            average=self._average,
            first=dict(zip(self.moving, self._optimiser.first, strict=True)),
            second=dict(zip(self.moving, self._optimiser.second, strict=True)),
            steps=self._optimiser.steps,
            generator=self.generator.get_state(),
        )

    def descend(self, loss: Tensor) -> float:
        """Take one optimiser step; return the loss, or not a number where there is no finite way down."""
        self._optimiser.zero_gradients()
        loss.backward()  # type: ignore[no-untyped-call]
        length = clip_grad_norm_(self.moving.values(), _LONGEST_GRADIENT)
        if not torch.isfinite(loss + length):
            return float("nan")
        risen = min(1.0, (self._optimiser.steps + 1) / max(self.plan.warm_up_steps, 1))
        self._optimiser.step(self.plan.learning_rate * risen)
        self._follow_average()
        return loss.item()

    def is_finite(self) -> bool:
        """Whether every weight that moves is a finite number."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.moving.values())

    @torch.no_grad()
    def _follow_average(self) -> None:
        # The share of the past grows with the steps, so that the base model itself is soon forgotten.
        steps = self._optimiser.steps
        decay = min(self.plan.average_decay, steps / (steps + 9))
        for name, parameter in self.moving.items():
            self._average[name].lerp_(parameter, 1 - decay)
