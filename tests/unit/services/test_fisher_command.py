"""`medloop fisher` as its user runs it, on phantoms; what it publishes is tested on a real broker."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medloop_model import pretrained
from medloop_model.checkpoint import digest, load_package
from medloop_model.errors import CorruptCheckpoint, ShapeError
from medloop_model.fisher_file import load_fisher
from medloop_model.training.ewc import MOST_FISHER
from medloop_services.cli import app
from medloop_services.fisher import representative_images
from medloop_services.replay.dataset import draw_dataset
from typer.testing import CliRunner


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a model that is at home on phantoms."""
    folder = tmp_path / "phantom"
    folder.mkdir()
    shutil.copy(pretrained.path("phantom"), folder / "model.safetensors")
    return folder


def measure(model: Path, *options: str) -> dict[str, object]:
    figures = model / "figures.json"
    arguments = [
        "fisher",
        str(model),
        "--data",
        "phantoms",
        "--images",
        "48",
        "--json",
        str(figures),
        *options,
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(figures.read_bytes())
    return found


def test_the_file_is_of_the_model_and_says_how_it_was_made(model: Path) -> None:
    figures = measure(model)
    file, sha256 = model / "fisher.safetensors", digest(model / "model.safetensors")
    assert (figures["fisher"], figures["sha256"]) == (str(file), digest(file))
    assert load_package(file, parts=()).provenance == {
        "base_version": f"phantom-{sha256[:12]}",
        "base_sha256": sha256,
        "data": "phantoms",
        "data_sha256": draw_dataset().digest,
        "images": 48,
        "seed": 0,
        "command": "medloop fisher phantom --data phantoms --images 48 --seed 0",
    }
    base = load_package(model / "model.safetensors", parts=("latent",))
    values = np.concatenate([each.astype(float).ravel() for each in load_fisher(file, base, sha256).values()])
    assert 0.7 < values.mean() <= 1.001
    assert values.max() <= MOST_FISHER


def test_it_ranks_weights_as_the_measurement_at_home_does(model: Path) -> None:
    measure(model)
    package = load_package(model / "model.safetensors", parts=("latent", "fisher"))
    found = load_fisher(model / "fisher.safetensors", package, digest(model / "model.safetensors"))
    logarithms = [
        np.concatenate([np.log(part[name].astype(float).ravel() + 1e-6) for name in sorted(package.latent)])
        for part in (found, package.fisher)
    ]
    assert np.corrcoef(logarithms)[0, 1] > 0.9


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(model: Path) -> None:
    first = measure(model)["sha256"]
    assert measure(model, "--out", str(model / "again.safetensors"))["sha256"] == first
    assert measure(model, "--seed", "1")["sha256"] != first


def test_a_scenario_leaves_out_what_comes_later(model: Path) -> None:
    assert "--scenario data-drift" in str(measure(model, "--scenario", "data-drift")["command"])


def test_representative_images_are_drawn_once_each() -> None:
    home = draw_dataset().test
    drawn = representative_images(home, 10**6, seed=0)
    assert drawn.shape == home.images.shape
    assert sorted(image.tobytes() for image in drawn) == sorted(image.tobytes() for image in home.images)
    np.testing.assert_array_equal(
        representative_images(home, 5, seed=3), representative_images(home, 5, seed=3)
    )


def test_images_that_do_not_fit_the_model_are_refused(model: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        f"{split}_{kind}": draw.integers(0, 2, (40, 32, 32) if kind == "images" else (40, 1), np.uint8)
        for split in ("train", "val", "test")
        for kind in ("images", "labels")
    }
    np.savez(tmp_path / "wide.npz", **arrays)
    result = CliRunner().invoke(app, ["fisher", str(model), "--data", str(tmp_path / "wide.npz")])
    assert isinstance(result.exception, ShapeError)
    assert not (model / "fisher.safetensors").exists()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    result = CliRunner().invoke(app, ["fisher", str(tmp_path), "--data", "phantoms"])
    assert isinstance(result.exception, CorruptCheckpoint)
