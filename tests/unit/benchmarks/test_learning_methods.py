"""The methods of `medloop bench learn`, on a few drawn images."""

from __future__ import annotations

from dataclasses import replace

import bench_learn
import numpy as np
import pytest
import torch
from adapting import adapt, judged
from drifts import Drift
from medloop_learner import parsed_changes
from medloop_model.training.freeze import EXPAND_HEAD
from medloop_services.replay.dataset import draw_dataset
from medloop_services.replay.errors import DatasetError
from medloop_services.replay.scenario import build_scenario
from medloop_services.replay.settings import ScenarioName, ScenarioSettings
from methods import PEERS, AvalancheMissing, method_of
from oracles import unadapted
from peer_settings import PeerSettings
from plain_learners import article, fine_tune, network_of
from problem import Problem, problem_from
from replay_learners import Reservoir, der_loss

TINY = {"images_before": 64, "images_after": 64}


@pytest.fixture(scope="module")
def problem() -> Problem:
    settings = ScenarioSettings(**TINY)
    stream = build_scenario(draw_dataset(), ScenarioName.DATA_DRIFT, settings)
    found = problem_from(stream, Drift("scanner 3", ScenarioName.DATA_DRIFT, "phantoms"), 0)
    few = np.arange(40)
    return replace(
        found,
        old_test=found.old_test.select(few),
        new_test=found.new_test.select(few),
        changed=found.changed[few],
    )


def test_der_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    new, first, kept, second = (torch.randn(6, 3, generator=generator) for _ in range(4))
    labels, kept_labels = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([2, 2, 1, 0, 0, 1])
    loss = der_loss((new, labels), (first, kept), (second, kept_labels), alpha=0.3, beta=0.7)

    def cross_entropy(logits: np.ndarray, right: np.ndarray) -> float:
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return float(-np.log(chances[np.arange(len(right)), right]).mean())

    expected = (
        cross_entropy(new.double().numpy(), labels.numpy())
        + 0.3 * float(((first - kept) ** 2).mean())
        + 0.7 * cross_entropy(second.double().numpy(), kept_labels.numpy())
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_reservoir_keeps_every_example_equally_likely():
    kept = np.zeros(20)
    for seed in range(400):
        buffer = Reservoir(5, torch.Generator().manual_seed(seed))
        numbers = torch.arange(20.0)
        buffer.add(numbers[:, None], numbers.long(), numbers[:, None])
        assert len(buffer.kept) == 5
        for _, label, _ in buffer.kept:
            kept[int(label)] += 1
    np.testing.assert_allclose(kept / 400, 5 / 20, atol=0.08)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "name", ["medloop:rehearsal_steps=0,fisher_images=2", "article", "replay", "der++", "head"]
)
def test_a_method_learns_the_stream_in_order_and_is_judged_at_the_counts(problem, name):
    judge = adapt(problem, method_of(name, ScenarioName.DATA_DRIFT))
    assert [point.labels for point in judge.points] == [16, 32, 64]
    assert all(0 <= figure <= 1 for point in judge.points for figure in (point.new, point.old, point.changed))
    again = adapt(problem, method_of(name, ScenarioName.DATA_DRIFT))
    assert again.points == judge.points


def test_the_article_leaves_old_rows_and_the_backbone_as_they_were(problem):
    classes = (*problem.classes, "new")
    expanded = replace(
        problem, classes=classes, drift=replace(problem.drift, scenario=ScenarioName.NEW_CLASS)
    )
    expanded = replace(expanded, new=expanded.new.relabelled(np.full(64, 2)))
    assert expanded.strategy == EXPAND_HEAD
    last = []
    article(PeerSettings(rate=1e-2))(expanded, lambda export: last.append(export()))
    before = {name: value.detach().numpy() for name, value in network_of(expanded).named_parameters()}
    for name, value in last[-1].latent.items():
        old = slice(0, 2) if name.startswith("head.") else slice(None)
        np.testing.assert_allclose(value[old], before[name][old], rtol=1e-3, atol=1e-4)
    assert not np.allclose(last[-1].latent["head.weight"][2], before["head.weight"][2], atol=1e-2)


def test_without_adaptation_the_old_answers_stay(problem):
    assert judged(problem, unadapted(problem), 0).old == judged(problem, problem.package, 0).old


@pytest.mark.timeout(120)
def test_avalanche_without_its_penalty_takes_the_same_steps_as_fine_tuning(problem):
    try:
        unheld = PEERS["avalanche-ewc"](PeerSettings(1e-3, weight=0.0))
    except AvalancheMissing:
        pytest.skip("Avalanche is not installed: `make bench-peers`")
    theirs, ours = [], []
    unheld(problem, lambda export: theirs.append(export()))
    fine_tune(PeerSettings(1e-3))(problem, lambda export: ours.append(export()))
    assert len(theirs) == len(ours) == 4
    for name, value in ours[-1].latent.items():
        np.testing.assert_allclose(theirs[-1].latent[name], value, atol=2e-3)


def test_a_changed_plan_is_read_from_the_methods_name():
    changes = parsed_changes("learning_rate=5e-4,everything=True,rehearsal_steps=2")
    assert changes == {"learning_rate": 5e-4, "everything": True, "rehearsal_steps": 2}
    with pytest.raises(ValueError, match="a training plan has no 'speed'"):
        parsed_changes("speed=1")


def test_a_method_that_there_is_not_is_refused():
    with pytest.raises(DatasetError, match="there is no method 'magic'; choose of none, oracle, medloop"):
        method_of("magic", ScenarioName.DATA_DRIFT)


def test_a_condition_that_there_is_not_is_refused(monkeypatch, tmp_path):
    command = ["bench_learn.py", "--data", str(tmp_path), "--conditions", "fog"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(DatasetError, match="no condition is called 'fog'; there are scanner 2"):
        bench_learn.main()
