from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medloop_model.architecture import Architecture
from medloop_model.checkpoint import save_package, save_teacher
from medloop_model.engine import Engine
from medloop_model.network import BiTMedViT
from medloop_model.statistics import softmax
from medloop_model.training.export import export_package, export_teacher
from medloop_schemas import (
    Artifact,
    AuditRecorded,
    ConfigurationError,
    Frame,
    InvalidEvent,
    ReleaseChanged,
    ReleaseStage,
)
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import load_settings
from medloop_services.publisher.audit import verify_chains
from medloop_services.publisher.evaluation import EngineEvaluator
from medloop_services.publisher.origin import first_releases
from medloop_services.publisher.settings import PublisherSettings
from medloop_services.publisher.state import PublisherState

TINY = Architecture(
    image_size=8, channels=1, patch_size=4, width=12, depth=1, heads=2, mlp_ratio=2, classes=("a", "b")
)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"), cache=tmp_path / "cache")


def saved(folder: Path, seed: int = 1) -> Path:
    save_package(export_package(BiTMedViT(TINY, seed=seed), {}), folder / "model.safetensors")
    return folder / "model.safetensors"


def settings(model: Path, **more: object) -> PublisherSettings:
    named = {f"MEDLOOP_PUBLISHER_{name}": value for name, value in {"MODEL": model, **more}.items()}
    return load_settings(PublisherSettings, named)


def test_every_configured_site_gets_its_first_release_and_audit_record(
    store: ArtifactStore, tmp_path: Path
) -> None:
    origins = first_releases(settings(saved(tmp_path), SITES="ward, clinic"), store)
    events = origins.bootstrap()
    releases = [event for event in events if isinstance(event, ReleaseChanged)]
    records = [event for event in events if isinstance(event, AuditRecorded)]
    assert [release.site_id for release in releases] == ["ward", "clinic"]
    assert all((release.number, release.stage) == (0, ReleaseStage.STABLE) for release in releases)
    assert releases[0].version == f"ward-{releases[0].package.sha256[:12]}"
    assert releases[0].classes == ("a", "b")
    chains = verify_chains(records)
    assert chains["clinic"] == origins.initial("clinic").audit
    assert origins.initial("clinic").stable == releases[1]


def test_a_second_start_says_the_same_with_the_same_ids(store: ArtifactStore, tmp_path: Path) -> None:
    chosen = settings(saved(tmp_path))
    assert first_releases(chosen, store).bootstrap() == first_releases(chosen, store).bootstrap()


def test_a_first_release_stays_when_another_model_is_configured_later(
    store: ArtifactStore, tmp_path: Path
) -> None:
    before = first_releases(settings(saved(tmp_path)), store)
    release = before.initial("ward").stable
    assert release is not None
    after = first_releases(settings(saved(tmp_path, seed=2)), store)
    assert after.bootstrap()[0] != release
    after.apply(release)
    assert after.bootstrap() == []
    assert after.initial("ward") == before.initial("ward")


def test_a_site_that_is_not_configured_has_no_release(store: ArtifactStore, tmp_path: Path) -> None:
    assert first_releases(settings(saved(tmp_path)), store).initial("elsewhere") == PublisherState()


def test_a_teacher_beside_the_model_is_released_with_it(store: ArtifactStore, tmp_path: Path) -> None:
    model = saved(tmp_path)
    assert first_releases(settings(model), store).initial("ward").stable.teacher is None  # type: ignore[union-attr]
    teacher = export_teacher(BiTMedViT(TINY.full_precision(), seed=2), {})
    digest = save_teacher(teacher, tmp_path / "teacher.safetensors")
    stable = first_releases(settings(model), store).initial("ward").stable
    assert stable is not None
    assert stable.teacher is not None
    assert stable.teacher.sha256 == digest


@pytest.mark.parametrize("content", [b"PK\x03\x04pickled", b"cut short"])
def test_a_model_that_cannot_be_used_stops_the_start_and_is_named(
    store: ArtifactStore, tmp_path: Path, content: bytes
) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"MEDLOOP_PUBLISHER_MODEL=.*bad\.safetensors"):
        first_releases(settings(bad), store)


def test_a_teacher_that_is_named_has_to_exist(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.safetensors"):
        first_releases(settings(saved(tmp_path), TEACHER=tmp_path / "none.safetensors"), store)


@pytest.fixture
def stored(store: ArtifactStore, tmp_path: Path) -> Artifact:
    return store.put(saved(tmp_path))


def frames(count: int, side: int = 8) -> list[Frame]:
    images = np.random.default_rng(0).integers(0, 256, (count, side, side), np.uint8)
    return [Frame.inline(image.tobytes(), height=side, width=side) for image in images]


def test_the_evaluator_says_what_the_engine_says(store: ArtifactStore, stored: Artifact) -> None:
    evaluator = EngineEvaluator(store)
    shown = frames(70)
    assert evaluator.classes(stored) == ("a", "b")
    engine = Engine(export_package(BiTMedViT(TINY, seed=1), {}))
    pixels = np.stack([np.frombuffer(frame.pixels(), np.uint8).reshape(8, 8) for frame in shown])
    logits = engine(pixels).logits
    answers = evaluator.answer(stored, shown)
    assert answers.names == [engine.classes[index] for index in logits.argmax(axis=1)]
    np.testing.assert_allclose(answers.probabilities, softmax(logits))
    assert evaluator.answer(stored, []).names == []


def test_the_evaluator_refuses_images_that_do_not_fit(store: ArtifactStore, stored: Artifact) -> None:
    with pytest.raises(InvalidEvent) as refused:
        EngineEvaluator(store).answer(stored, frames(2, side=4))
    assert refused.value.code == "shape"


def test_the_evaluator_refuses_a_broken_package(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"cut short")
    with pytest.raises(InvalidEvent, match="safetensors"):
        EngineEvaluator(store).classes(store.put(tmp_path / "bad.safetensors"))
