from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from medloop_model import pretrained
from medloop_model.checkpoint import ModelPackage, load_package
from medloop_model.federation.proximal import with_proximal_term
from medloop_model.federation.update import difference
from medloop_model.training.batch import Batch
from medloop_model.training.ewc import ewc_penalty
from medloop_model.training.export import network_from
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.strategies import measured_plan
from medloop_model.training.streaming import StreamingLearner

STRENGTH = 0.3


@pytest.fixture(scope="module")
def home() -> ModelPackage:
    return load_package(pretrained.path("phantom"), parts=("latent", "fisher"))


def plan_for(package: ModelPackage) -> TrainingPlan:
    plan = measured_plan("shallow-ewc", package.architecture.classes)
    return replace(plan, everything=True, rehearsal_steps=2, retention=0.0, fisher_images=1)


def test_its_gradient_pulls_every_weight_back_by_its_distance(home: ModelPackage) -> None:
    """∇ μ/2·‖w − w_t‖² = μ·(w − w_t)."""
    package, plan = with_proximal_term(home, plan_for(home), STRENGTH)
    network = network_from(package)
    anchor = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    fisher = {name: torch.from_numpy(values.astype(np.float32)) for name, values in package.fisher.items()}
    penalty = plan.ewc_lambda * ewc_penalty(network.named_parameters(), anchor, fisher)
    penalty.backward()  # type: ignore[no-untyped-call]
    squares = sum(
        float((w.detach() - anchor[n]).double().pow(2).sum()) for n, w in network.named_parameters()
    )
    assert float(penalty.detach()) == pytest.approx(STRENGTH / 2 * squares, rel=1e-4)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight.grad, STRENGTH * (weight.detach() - anchor[name]))


def test_a_site_that_is_held_stays_nearer_to_the_base(home: ModelPackage) -> None:
    draw = np.random.default_rng(0)
    side = home.architecture.image_size
    labels = np.arange(16) % len(home.architecture.classes)
    images = draw.integers(0, 256, (16, side, side), dtype=np.uint8)
    batch = Batch(images, labels, tuple(map(str, range(16))))

    def moved(strength: float) -> float:
        package, plan = with_proximal_term(home, plan_for(home), strength)
        learner = StreamingLearner(package, None, plan)
        state, _ = learner.step(learner.begin(), batch)
        return difference(home, learner.package(state), 16).norm

    assert moved(100.0) < 0.9 * moved(0.0)


def test_what_holds_a_site_is_not_passed_off_as_fisher_information(home: ModelPackage) -> None:
    plan = replace(plan_for(home), fisher_decay=0.0)
    side, draw = home.architecture.image_size, np.random.default_rng(0)
    images = draw.integers(0, 256, (16, side, side), dtype=np.uint8)
    batch = Batch(images, np.arange(16) % 2, tuple(map(str, range(16))))
    package, held = with_proximal_term(home, plan_for(home), 1e-9)
    found = []
    for learner in (StreamingLearner(package, None, held), StreamingLearner(home, None, plan)):
        state, _ = learner.step(learner.begin(), batch)
        found.append(learner.package(state).fisher)
    for name, expected in found[1].items():
        np.testing.assert_allclose(found[0][name], expected, rtol=0.05, atol=0.01)
