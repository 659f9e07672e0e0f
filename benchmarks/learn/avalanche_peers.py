"""Avalanche's EWC and replay (Carta et al., arXiv 2302.01766): same network, stream, order and optimiser.

What is remembered from before the change is Avalanche's first experience: nothing is trained on it, but its
Fisher information is measured and its examples are kept, as after a training. The stream is the second.
Importing this needs Avalanche.
"""

from __future__ import annotations

import peers_path  # noqa: F401  # isort: skip  (where Avalanche is installed)

import warnings
from typing import Any

import torch
from adapting import Method, Observe
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, ReplayPlugin, SupervisedPlugin
from avalanche.training.supervised import Naive
from medloop_model.architecture import Architecture
from medloop_model.training.adam import EPSILON, FIRST_DECAY, SECOND_DECAY
from medloop_model.training.export import export_package
from medloop_model.training.images import to_labels, to_pixels
from medloop_services.replay.split import Split
from peer_settings import PeerSettings
from plain_learners import network_of
from problem import BATCH, REMEMBERED, Problem
from torch.nn import CrossEntropyLoss
from torch.nn.utils import clip_grad_norm_


def avalanche_ewc(settings: PeerSettings) -> Method:
    """Return Avalanche's EWC with λ = `settings.weight` on its own Fisher information."""

    def learn(problem: Problem, observe: Observe) -> None:
        _learn(problem, observe, EWCPlugin(ewc_lambda=settings.weight), settings.rate)

    return learn


def avalanche_replay(settings: PeerSettings) -> Method:
    """Return Avalanche's replay: a mini-batch beside as many remembered examples."""

    def learn(problem: Problem, observe: Observe) -> None:
        replay = ReplayPlugin(mem_size=REMEMBERED, batch_size=BATCH, batch_size_mem=BATCH)
        _learn(problem, observe, replay, settings.rate)

    return learn


class Watcher(SupervisedPlugin):  # type: ignore[misc]
    """Clips gradients as medloop does, and tells after each update.

    Args:
        observe: is told.
    """

    def __init__(self, observe: Observe) -> None:
        super().__init__()
        self.observe = observe

    def before_update(self, strategy: Any, **_: Any) -> None:
        clip_grad_norm_(strategy.model.parameters(), 1.0)

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        self.observe(lambda: export_package(strategy.model, {}))


def _learn(problem: Problem, observe: Observe, plugin: Any, rate: float) -> None:
    torch.manual_seed(problem.seed)  # Avalanche draws from the global generator
    network = network_of(problem)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=rate, betas=(FIRST_DECAY, SECOND_DECAY), eps=EPSILON, weight_decay=0.0
    )
    strategy = Naive(
        model=network,
        optimizer=optimiser,
        criterion=CrossEntropyLoss(),
        train_mb_size=BATCH,
        plugins=[plugin, Watcher(observe)],
        evaluator=EvaluationPlugin(loggers=[]),
    )
    datasets = [_dataset(part, network.architecture) for part in (problem.old, problem.new)]
    before, after = benchmark_from_datasets(train=datasets).train_stream
    with warnings.catch_warnings(record=True):  # its replay calls what it itself calls deprecated
        strategy.train_epochs = 0
        strategy.train(before)
        strategy.train_epochs = 1
        strategy.train(after, shuffle=False)


def _dataset(split: Split, architecture: Architecture) -> Any:
    labels_B = to_labels(split.labels, architecture)
    images = torch.utils.data.TensorDataset(to_pixels(split.images, architecture), labels_B)
    images.targets = labels_B.tolist()
    return as_classification_dataset(images)
