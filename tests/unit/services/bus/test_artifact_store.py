from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_schemas import Artifact, ConfigurationError, TransientError
from medloop_services.bus.artifacts import ArtifactStore, CorruptArtifact


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"), cache=tmp_path / "cache")


def model_file(folder: Path, content: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


@given(content=st.binary(min_size=1, max_size=4096))
def test_fetch_returns_what_was_put(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("artifact")
    store = ArtifactStore(str(folder / "store"), cache=folder / "cache")
    artifact = store.put(model_file(folder, content))
    assert artifact.sha256 == hashlib.sha256(content).hexdigest()
    assert artifact.size == len(content)
    assert store.fetch(artifact).read_bytes() == content
    assert store.fetch(artifact).suffix == ".safetensors"


def test_putting_twice_gives_one_file(store: ArtifactStore, tmp_path: Path) -> None:
    path = model_file(tmp_path, b"weights")
    assert store.put(path) == store.put(path)
    assert sum(1 for found in (tmp_path / "store").rglob("*") if found.is_file()) == 1


def test_changed_bytes_are_refused_with_both_digests(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(model_file(tmp_path, b"weights"))
    Path(artifact.url.removeprefix("file://")).write_bytes(b"weightz")
    with pytest.raises(CorruptArtifact) as refused:
        store.fetch(artifact)
    assert refused.value.expected == artifact.sha256
    assert refused.value.found == hashlib.sha256(b"weightz").hexdigest()
    assert artifact.url in str(refused.value)


def test_a_damaged_cache_is_repaired_from_the_store(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(model_file(tmp_path, b"weights"))
    store.fetch(artifact).write_bytes(b"damaged")
    assert store.fetch(artifact).read_bytes() == b"weights"


def test_a_missing_file_is_corrupt_but_a_missing_store_is_away(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(model_file(tmp_path, b"weights"))
    gone = Path(artifact.url.removeprefix("file://"))
    gone.unlink()
    with pytest.raises(CorruptArtifact, match="missing"):
        store.fetch(artifact)
    away = Artifact(url=f"file://{tmp_path}/unmounted/ab/file.safetensors", sha256=artifact.sha256, size=7)
    with pytest.raises(TransientError, match="MEDLOOP_ARTIFACTS"):
        store.fetch(away)


def test_an_interrupted_fetch_leaves_no_file_behind(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(model_file(tmp_path, b"weights"))
    Path(artifact.url.removeprefix("file://")).write_bytes(b"")
    with pytest.raises(CorruptArtifact):
        store.fetch(artifact)
    assert not [found for found in (tmp_path / "cache").rglob("*") if found.is_file()]


def test_no_more_is_fetched_than_was_announced(store: ArtifactStore, tmp_path: Path) -> None:
    """Whoever writes an event chooses its url: behind it may be bytes without end."""
    endless = Artifact(url="file:///dev/zero", sha256="1" * 64, size=7)
    with pytest.raises(CorruptArtifact, match="more than the 7 bytes announced"):
        store.fetch(endless)
    assert not [found for found in (tmp_path / "cache").rglob("*") if found.is_file()]


def test_a_url_of_no_known_kind_is_corrupt(store: ArtifactStore) -> None:
    with pytest.raises(CorruptArtifact, match="no content: Protocol not known: nonsense"):
        store.fetch(Artifact(url="nonsense://bucket/file", sha256="1" * 64, size=7))


@pytest.mark.parametrize("path", ["/tmp", f"/tmp/{'a' * 300}"])
def test_a_url_that_can_name_no_file_is_corrupt(store: ArtifactStore, path: str) -> None:
    with pytest.raises(CorruptArtifact, match="no content"):
        store.fetch(Artifact(url=f"file://{path}", sha256="1" * 64, size=7))


def test_a_store_knows_its_own(store: ArtifactStore, tmp_path: Path) -> None:
    assert store.holds(store.put(model_file(tmp_path, b"weights")).url)
    for other in (f"file://{tmp_path}/storeroom/file", "http://host/store/file", "nonsense://store/file"):
        assert not store.holds(other)


def test_a_store_of_no_known_kind_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="MEDLOOP_ARTIFACTS=nonsense://x: Protocol not known"):
        ArtifactStore("nonsense://x")
