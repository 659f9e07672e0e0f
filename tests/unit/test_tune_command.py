"""`medloop tune` on drawn phantoms: what it writes, prints and refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from medloop_model.checkpoint import load_package
from medloop_model.training.selector import Cause
from medloop_services import cli
from medloop_services.replay.dataset import draw_dataset
from medloop_services.replay.scenario import build_scenario
from medloop_services.replay.settings import ScenarioSettings
from medloop_services.tuning import report_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `medloop tune …` in a folder of its own; returns its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["medloop", "tune", "--data", "phantoms", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return command


def test_a_candidate_is_written_with_its_evidence(run: Run, tmp_path: Path) -> None:
    status, said, _ = run("--labels", "96", "--before", "120", "--json", "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["cause"] == "data-drift"
    assert figures["choice"]["reason_codes"][0] == "data-drift"
    assert figures["choice"]["reasons"][0] in said
    assert status == (0 if figures["verdict"]["passed"] else 1)
    validation = figures["evidence"]["validation"]
    assert validation["new"]["studies"] + figures["evidence"]["new_labels"] <= 96
    assert {"balanced_accuracy", "recall", "calibration_error"} <= set(validation["old"]["candidate"])
    assert set(figures["test"]) == {"before", "drifted", "after", "old_domain_before", "old_domain_after"}
    package = load_package(tmp_path / figures["model"], parts=("packed", "latent", "reference"))
    assert package.provenance["diagnosis"] == "data-drift"
    assert figures["verdict"]["reason"] in said
    assert "held out, since" in said


def test_a_search_says_what_it_tried_and_what_paid_is_kept(run: Run, tmp_path: Path) -> None:
    _, said, _ = run("--labels", "48", "--before", "40", "--tune-seconds", "1", "--json", "figures.json")
    tuned = json.loads((tmp_path / "figures.json").read_text())["evidence"]["tuned"]
    assert f"search: the best of {len(tuned['trials'])} trials" in said
    assert (tmp_path / "runs/tune/searches.json").exists() is (tuned["gain_lower"] > 0)


def test_with_too_few_labels_nothing_is_written(run: Run, tmp_path: Path) -> None:
    status, said, _ = run("--labels", "8", "--before", "40")
    assert status == 1
    assert "refused:" in said
    assert "16 are needed" in said
    assert not (tmp_path / "runs/tune/model.safetensors").exists()


def test_a_history_that_can_not_be_read_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "runs/tune").mkdir(parents=True)
    (tmp_path / "runs/tune/searches.json").write_text("nothing")
    status, _, errors = run("--labels", "48", "--before", "40")
    assert status == 1
    assert "searches.json: no list of past searches" in errors


def test_a_report_holds_both_sides_of_a_drift() -> None:
    stream = build_scenario(
        draw_dataset("new-class"), "new-class", ScenarioSettings(images_before=30, images_after=50)
    )
    report = report_of(stream, 20)
    assert report.cause is Cause.NEW_CLASS
    assert report.new_classes == stream.classes_after[-1:]
    assert (len(report.old), len(report.new), len(report.unlabelled)) == (30, 20, 30)
    np.testing.assert_array_equal(report.new.images, stream.shown.images[30:50])
    np.testing.assert_array_equal(report.unlabelled, stream.shown.images[50:])
