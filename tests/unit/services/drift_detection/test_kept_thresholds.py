from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medloop_model.statistics import Reference
from medloop_services.drift_detection.kept_thresholds import calibrated_once
from medloop_services.drift_detection.panel import Panel
from medloop_services.drift_detection.settings import DriftDetectionSettings

QUICK = DriftDetectionSettings(detectors=("mmd", "cusum"))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return tmp_path / "digest.safetensors"


def test_what_was_calibrated_is_taken_up_again_exactly(
    package: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = calibrated_once(package, reference, QUICK)

    def again(*_: object) -> Panel:
        raise AssertionError("calibrated a second time")

    monkeypatch.setattr(Panel, "calibrated", again)
    kept = calibrated_once(package, reference, QUICK)
    for before, after in zip(first.detectors, kept.detectors, strict=True):
        assert before.name == after.name
        np.testing.assert_array_equal(before.thresholds, after.thresholds)


def test_other_settings_have_other_thresholds(package: Path, reference: Reference) -> None:
    usual = calibrated_once(package, reference, QUICK)
    strict = QUICK.model_copy(update={"images_per_false_alarm": 100_000})
    higher = calibrated_once(package, reference, strict)
    assert (higher.detectors[0].thresholds > usual.detectors[0].thresholds).all()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"mmd": ["x"], "cusum": [1]}', '{"mmd": [1]}'])
def test_a_damaged_file_is_made_again(package: Path, reference: Reference, damage: str) -> None:
    usual = calibrated_once(package, reference, QUICK)
    (file,) = package.parent.glob("*.thresholds.json")
    whole = file.read_text()
    file.write_text(damage)
    made = calibrated_once(package, reference, QUICK)
    np.testing.assert_array_equal(made.detectors[1].thresholds, usual.detectors[1].thresholds)
    assert file.read_text() == whole


def test_a_full_disk_costs_the_file_and_nothing_else(
    package: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert calibrated_once(package, reference, QUICK).detectors
    assert not list(package.parent.iterdir())
