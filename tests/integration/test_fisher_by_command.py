"""The monthly job on a real broker: what is published reaches a learner, and only for what was released."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from medloop_model import pretrained
from medloop_model.checkpoint import load_package, save_package
from medloop_schemas import (
    AdaptationRequested,
    Diagnosis,
    FisherMeasured,
    ReleaseChanged,
    ReleaseStage,
    Strategy,
    decode,
    topic_of,
)
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.fisher_catalog import FisherCatalog
from medloop_services.bus.health import Health
from medloop_services.bus.outgoing import outgoing
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.bus.topics import ensure_topics
from medloop_services.online_learner.fisher import FisherChoice
from medloop_services.replay.consumer import read_to_end

pytestmark = pytest.mark.integration

MODEL = pretrained.path("phantom")
SITE = "fisher"


def medloop_fisher(settings: BusSettings, model: Path, out: Path) -> subprocess.CompletedProcess[str]:
    options = ("--data", "phantoms", "--images", "32", "--out", str(out), "--publish")
    return subprocess.run(
        [sys.executable, "-m", "medloop_services.cli", "fisher", str(model), *options],
        env={
            **os.environ,
            "MEDLOOP_KAFKA": settings.kafka,
            "MEDLOOP_ARTIFACTS": settings.artifacts,
            "COLUMNS": "300",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def released(settings: BusSettings, store: ArtifactStore) -> ReleaseChanged:
    """Release the model, and return the release."""
    package = store.put(MODEL)
    release = ReleaseChanged(
        time=datetime(2026, 1, 1, tzinfo=UTC),
        site_id=SITE,
        number=0,
        version=f"ward-{package.sha256[:12]}",
        stage=ReleaseStage.STABLE,
        package=package,
        classes=("normal", "opacity"),
        reason="a test",
    )

    async def send() -> None:
        await ensure_topics(settings)
        sender = Sender(settings, Health(), "test")
        await sender.deliver([outgoing(release, "/test")])
        await sender.stop()

    asyncio.run(send())
    return release


def published(settings: BusSettings) -> list[FisherMeasured]:
    async def collect() -> list[FisherMeasured]:
        topic = topic_of(FisherMeasured).name
        return [decode(FisherMeasured, record.value) async for record in read_to_end(settings, [topic])]

    return asyncio.run(collect())


def test_a_published_measurement_is_what_an_adaptation_of_that_version_starts_with(
    settings: BusSettings, tmp_path: Path
) -> None:
    store = ArtifactStore(settings.artifacts, cache=tmp_path / "cache")
    base = released(settings, store)
    ran = medloop_fisher(settings, MODEL, tmp_path / "fisher.safetensors")
    assert ran.returncode == 0, ran.stderr
    (told,) = (line for line in ran.stderr.splitlines() if "used from the next adaptation on" in line)
    assert base.version in told

    catalog = FisherCatalog()
    for event in published(settings):
        catalog.apply(event)
    request = AdaptationRequested(
        time=datetime.now(UTC),
        site_id=SITE,
        diagnosis=Diagnosis.DATA_DRIFT,
        strategy=Strategy.SHALLOW_EWC,
        base_version=base.version,
        onset={"fisher/scanner-1": 0},
        detector="mmd",
        evidence=("a test",),
    )
    chosen = FisherChoice(catalog.measured, store)(request, base)
    assert chosen is not None
    assert store.fetch(chosen).read_bytes() == (tmp_path / "fisher.safetensors").read_bytes()


def test_of_a_package_that_nobody_released_nothing_is_published(
    settings: BusSettings, tmp_path: Path
) -> None:
    before = len(published(settings))
    own = load_package(pretrained.path("phantom"), parts=("packed", "latent"))
    save_package(replace(own, provenance={**own.provenance, "of": "a test"}), tmp_path / "own.safetensors")
    ran = medloop_fisher(settings, tmp_path / "own.safetensors", tmp_path / "fisher.safetensors")
    assert ran.returncode == 2
    assert "no release is of the package with sha256" in ran.stderr
    assert not (tmp_path / "fisher.safetensors").exists()
    assert len(published(settings)) == before
