"""Joules of the forward pass are counted where they can be read; images are served where they can't."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from medloop_kernels import energy
from medloop_kernels.energy.rapl import Rapl
from medloop_model.engine import EngineOutput
from medloop_services.bus.health import Health
from medloop_services.inference.energy import JOULES, metered
from numpy.typing import NDArray
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

IMAGES = np.zeros((1, 2, 2), np.uint8)
SOURCE = "RAPL package-0"
USED = 2_500_000  # µJ, by one forward pass


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, content in {
        "name": "package-0",
        "max_energy_range_uj": "65532610987",
        "energy_uj": "7",
    }.items():
        (zone / name).write_text(content)
    monkeypatch.setattr(energy, "METERS", (partial(Rapl, tmp_path),))
    energy.open_meter.cache_clear()
    JOULES.clear()
    yield tmp_path
    energy.open_meter.cache_clear()


def forward(powercap: Path, images: NDArray[np.uint8]) -> EngineOutput:
    """A pass that takes 2.5 J; where the counter is gone, it still answers."""
    counter = powercap / "intel-rapl:0" / "energy_uj"
    if counter.exists():
        counter.write_text(str(int(counter.read_text()) + USED))
    zeros = np.zeros((len(images), 1), np.float32)
    return EngineOutput(zeros, zeros, zeros[:, :, None])


def joules() -> float | None:
    return REGISTRY.get_sample_value("medloop_inference_energy_joules_total", {"source": SOURCE})


def test_joules_of_forward_passes_are_counted_and_those_between_are_not(powercap: Path) -> None:
    run = metered(partial(forward, powercap), Health())
    run(IMAGES)
    assert joules() == 2.5
    forward(powercap, IMAGES)
    run(IMAGES)
    assert joules() == 5.0


def test_a_meter_that_fails_degrades_the_service_and_images_are_served_on(powercap: Path) -> None:
    health = Health()
    run = metered(partial(forward, powercap), health)
    counter = powercap / "intel-rapl:0" / "energy_uj"
    counter.unlink()
    assert len(run(IMAGES).logits) == 1
    assert "energy is no longer counted: RAPL's" in health.degraded["energy"]
    assert joules() is None
    counter.write_text("8")
    run(IMAGES)
    assert health.degraded == {}
    assert joules() == 2.5


def test_where_no_energy_can_be_read_there_is_no_counter_and_the_log_says_why(powercap: Path) -> None:
    (powercap / "intel-rapl:0" / "name").write_text("psys")
    run = partial(forward, powercap)
    with capture_logs() as logs:
        assert metered(run, Health()) is run
    assert [entry["event"] for entry in logs] == ["energy is not counted"]
    assert "has no RAPL zone" in logs[0]["reason"]
    assert joules() is None
