"""Two hospitals of phantoms: what is compared is trained, merged and measured for real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from medloop_model import pretrained
from medloop_model.checkpoint import ModelPackage, load_package
from medloop_model.federation.merging import MergeSettings
from medloop_model.federation.update import difference, shared_digest
from medloop_services.cli import app
from medloop_services.federating.arms import POISON, Arms, turned
from medloop_services.federating.comparison import accuracy, compare, measure
from medloop_services.federating.hospitals import Hospital, draw_hospitals, few_of_home
from medloop_services.federating.local_training import LocalTraining, plan_for
from medloop_services.replay.dataset import draw_dataset
from typer.testing import CliRunner


class Steps:
    """Counts the mini-batches that were trained on."""

    def __init__(self) -> None:
        self.trained = 0

    def __call__(self, stage: str, done: int, total: int, loss: float) -> None:
        self.trained += loss != 0.0


@pytest.fixture(scope="module")
def home() -> ModelPackage:
    return load_package(pretrained.path("phantom"), parts=("packed", "latent", "fisher"))


@pytest.fixture(scope="module")
def hospitals() -> tuple[Hospital, ...]:
    return draw_hospitals(draw_dataset(), 2, 100.0, images=20, severity=3, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


def arms_of(home: ModelPackage, hospitals: tuple[Hospital, ...], folder: Path, steps: Steps) -> Arms:
    plan = replace(plan_for(home, seed=0), rehearsal_steps=0, fisher_images=1)
    return Arms(home, hospitals, plan, 1, LocalTraining(folder, few_of_home(draw_dataset(), 8, 0), 16, steps))


def test_all_ways_are_compared_and_a_second_run_trains_nothing(
    home: ModelPackage, hospitals: tuple[Hospital, ...], folder: Path
) -> None:
    steps = Steps()
    rows = compare(arms_of(home, hospitals, folder, steps), MergeSettings(), poisoned=1)
    names = [row.name for row in rows]
    assert {"base", "site-1 alone", "site-2 alone", "pooled", "federated, soft-vote"} <= set(names)
    assert {"poisoned, weighted-mean", "poisoned, trimmed-mean", "poisoned, soft-vote"} <= set(names)
    assert all(len(row.accuracy) == 1 and 0 <= row.union <= 1 for row in rows)
    assert steps.trained > 0
    again = Steps()
    assert compare(arms_of(home, hospitals, folder, again), MergeSettings(), poisoned=1) == rows
    assert again.trained == 0


def test_federated_sites_end_with_the_same_shared_weights(
    home: ModelPackage, hospitals: tuple[Hospital, ...], folder: Path
) -> None:
    one, other = arms_of(home, hospitals, folder, Steps()).federated(MergeSettings())
    assert shared_digest(one.latent) == shared_digest(other.latent) != shared_digest(home.latent)
    assert (one.latent["norm.weight"] != other.latent["norm.weight"]).any()


def test_a_cheat_turns_its_update_round(home: ModelPackage) -> None:
    moved = replace(home, latent={**home.latent, "head.bias": home.latent["head.bias"] + np.float16(0.5)})
    update = difference(home, moved, 1)
    np.testing.assert_allclose(turned(update).deltas["head.bias"], POISON * update.deltas["head.bias"])


def test_accuracy_is_by_the_hospitals_own_mix(home: ModelPackage, hospitals: tuple[Hospital, ...]) -> None:
    one_class = replace(hospitals[0], mix=np.eye(len(hospitals[0].mix))[0])
    other_class = replace(hospitals[0], mix=np.eye(len(hospitals[0].mix))[1])
    half = replace(hospitals[0], mix=(one_class.mix + other_class.mix) / 2)
    expected = (accuracy(home, one_class) + accuracy(home, other_class)) / 2
    assert accuracy(home, half) == pytest.approx(expected)
    row = measure("base", [home, home], [half, replace(half, training=hospitals[1].training)])
    assert row.union == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--sites", "2", "--poisoned", "2"], "leave at least one of 2 sites honest"),
        (["--sites", "2", "--model", str(pretrained.path("pneumonia"))], "name a --model"),
    ],
)
def test_what_can_not_be_compared_is_told(options: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["simulate", "--data", "phantoms", *options])
    assert told in str(result.exception)


def test_a_site_gets_a_key_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "ash.pem"
    result = CliRunner().invoke(app, ["site-key", "--out", str(path)])
    assert len(result.stdout.split()[0]) == 64
    again = CliRunner().invoke(app, ["site-key", "--out", str(path)])
    assert "no key is overwritten" in str(again.exception)
