"""The service as it is deployed, on packages that can't be used: it serves on and its health says why."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from medloop_model import pretrained
from medloop_schemas import Artifact, Frame, ImageAcquired, PredictionMade, ReleaseChanged, ReleaseStage
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
from medloop_services.bus.processor import MapProcessor
from medloop_services.inference.app import build

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = pretrained.path("phantom")


def release(number: int, version: str, package: Artifact, previous: str | None = None) -> ReleaseChanged:
    return ReleaseChanged(
        time=EPOCH,
        site_id="ward",
        number=number,
        version=version,
        stage=ReleaseStage.STABLE,
        package=package,
        classes=("normal", "opacity"),
        previous_version=previous,
        reason="a test",
    )


def image(sequence: int) -> ImageAcquired:
    return ImageAcquired(
        time=EPOCH,
        image_id=f"scanner-{sequence}",
        device_id="scanner",
        site_id="ward",
        study_id=f"study-{sequence}",
        sequence=sequence,
        frame=Frame.inline(bytes(28 * 28), height=28, width=28),
    )


def cut_short(store: ArtifactStore, folder: Path) -> Artifact:
    path = folder / "short.safetensors"
    path.write_bytes(GOOD.read_bytes()[:50_000])
    return store.put(path)


def of_another_digest(store: ArtifactStore, folder: Path) -> Artifact:
    path = folder / "swapped.safetensors"
    path.write_bytes(GOOD.read_bytes() + b"one byte more")
    return store.put(path).model_copy(update={"sha256": "ab" * 32})


def pickled(store: ArtifactStore, folder: Path) -> Artifact:
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps({"weights": [0.0]}))
    return store.put(path)


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [(cut_short, "fetch or export"), (of_another_digest, "SHA-256"), (pickled, "never loaded")],
)
def test_a_package_that_cannot_be_used_degrades_the_service_and_the_last_one_serves(
    spoiled: Callable[[ArtifactStore, Path], Artifact], told: str, tmp_path: Path
) -> None:
    store = ArtifactStore(str(tmp_path / "store"), cache=tmp_path / "cache")
    context = Context(store)
    service = build(context)
    (processor,) = service.processors
    assert isinstance(processor, MapProcessor)

    def serve(sequence: int, *changes: ReleaseChanged) -> str:
        (follower,) = (one for one in service.followers if one.event is ReleaseChanged)
        for change in changes:
            follower.apply(change)
        (outcome,) = processor.map([image(sequence)])
        assert not isinstance(outcome, Exception)
        (made,) = outcome
        assert isinstance(made, PredictionMade)
        return made.model_version

    good, bad = store.put(GOOD), spoiled(store, tmp_path)
    assert serve(0, release(0, "one", good)) == "one"
    assert context.health.degraded == {}
    assert serve(1, release(1, "two", bad, "one")) == "one"
    (sentence,) = context.health.degraded.values()
    assert bad.url in sentence
    assert told in sentence
    assert "one goes on serving" in sentence
    assert serve(2, release(2, "three", good, "two")) == "three"
    assert context.health.degraded == {}
