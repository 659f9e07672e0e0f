from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from medloop_model import pretrained
from medloop_model.checkpoint import ModelPackage, load_package, save_package
from medloop_model.errors import CorruptCheckpoint, FisherOfAnotherBase, ModelError, UnfitFisher
from medloop_model.fisher_file import FisherOrigin, save_fisher
from medloop_schemas import (
    AdaptationRequested,
    Artifact,
    Diagnosis,
    FisherMeasured,
    ReleaseChanged,
    ReleaseStage,
    Strategy,
    TransientError,
)
from medloop_services.bus.artifacts import ArtifactStore, CorruptArtifact
from medloop_services.bus.fisher_catalog import FisherCatalog
from medloop_services.online_learner.fisher import FisherChoice, check_fisher
from structlog.testing import capture_logs

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
VERSION = "ward-0"
REQUEST = AdaptationRequested(
    time=EPOCH,
    site_id="ward",
    diagnosis=Diagnosis.DATA_DRIFT,
    strategy=Strategy.SHALLOW_EWC,
    base_version=VERSION,
    onset={"ward/scanner-1": 20},
    detector="mmd",
    evidence=("a test",),
)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"), cache=tmp_path / "cache")


@pytest.fixture
def base(store: ArtifactStore) -> ReleaseChanged:
    return ReleaseChanged(
        time=EPOCH,
        site_id="ward",
        number=0,
        version=VERSION,
        stage=ReleaseStage.STABLE,
        package=store.put(pretrained.path("phantom")),
        classes=("normal", "opacity"),
        reason="a test",
    )


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return load_package(pretrained.path("phantom"), parts=("latent", "fisher"))


def event(fisher: Artifact, base_sha256: str, days_ago: int = 1) -> FisherMeasured:
    return FisherMeasured(
        time=EPOCH - days_ago * DAY,
        base_version=VERSION,
        base_sha256=base_sha256,
        fisher=fisher,
        images=64,
        data_sha256="d" * 64,
        seed=0,
        command="medloop fisher",
    )


class Cloud:
    """Measures: writes Fisher files into the store and says so."""

    def __init__(
        self, store: ArtifactStore, package: ModelPackage, base: ReleaseChanged, folder: Path
    ) -> None:
        self.store, self.package, self.base, self.folder = store, package, base, folder

    def measured(self, seed: int, days_ago: int = 1, on: str | None = None) -> FisherMeasured:
        sha256 = on or self.base.package.sha256
        path = self.folder / f"{seed}.safetensors"
        origin = FisherOrigin(VERSION, sha256, "phantoms", "d" * 64, 64, seed, "medloop fisher")
        save_fisher(self.package, self.package.fisher, origin, path)
        return event(self.store.put(path), sha256, days_ago)

    def misfit(self) -> FisherMeasured:
        path = self.folder / "misfit.safetensors"
        self.measured(99)
        whole = load_package(self.folder / "99.safetensors", parts=("fisher",))
        fisher = whole.fisher | {"head.bias": np.ones(3, np.float16)}
        save_package(ModelPackage(whole.architecture, fisher=fisher, provenance=whole.provenance), path)
        return event(self.store.put(path), self.base.package.sha256)

    def liar(self) -> FisherMeasured:
        """A file of another base, in an event that says it is of this one."""
        return self.measured(98, on="0" * 64).model_copy(update={"base_sha256": self.base.package.sha256})

    def garbled(self) -> FisherMeasured:
        made = self.measured(97)
        Path(made.fisher.url.removeprefix("file://")).write_bytes(b"garbage")
        return made

    def no_fisher(self) -> FisherMeasured:
        path = self.folder / "text.safetensors"
        path.write_bytes(b"no safetensors at all")
        return event(self.store.put(path), self.base.package.sha256)


@pytest.fixture
def cloud(store: ArtifactStore, package: ModelPackage, base: ReleaseChanged, tmp_path: Path) -> Cloud:
    return Cloud(store, package, base, tmp_path)


def choose(store: ArtifactStore, base: ReleaseChanged, *events: FisherMeasured) -> Artifact | None:
    catalog = FisherCatalog()
    for each in events:
        catalog.apply(each)
    return FisherChoice(catalog.measured, store)(REQUEST, base)


def test_without_a_measurement_the_package_speaks_for_itself(
    store: ArtifactStore, base: ReleaseChanged
) -> None:
    assert choose(store, base) is None


def test_the_newest_of_the_base_at_the_time_of_the_request_is_chosen(
    store: ArtifactStore, base: ReleaseChanged, cloud: Cloud
) -> None:
    older, newer, later = cloud.measured(1, 30), cloud.measured(2, 1), cloud.measured(3, -1)
    assert choose(store, base, newer, older, later) == newer.fisher


def test_of_another_base_is_refused_before_anything_is_fetched(
    store: ArtifactStore, base: ReleaseChanged
) -> None:
    nowhere = Artifact(url="file:///nowhere/fisher.safetensors", sha256="1" * 64, size=1)
    with pytest.raises(FisherOfAnotherBase, match=base.package.sha256):
        check_fisher(event(nowhere, "0" * 64), base, store)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("misfit", UnfitFisher.code),
        ("liar", FisherOfAnotherBase.code),
        ("garbled", "artifact"),
        ("no_fisher", CorruptCheckpoint.code),
    ],
)
def test_what_is_wrong_is_refused_with_its_reason_and_the_one_before_goes_on(
    store: ArtifactStore,
    base: ReleaseChanged,
    cloud: Cloud,
    wrong: str,
    code: str,
) -> None:
    older, bad = cloud.measured(1, 30), getattr(cloud, wrong)()
    with pytest.raises((ModelError, CorruptArtifact)) as refused:
        check_fisher(bad, base, store)
    with capture_logs() as logs:
        assert choose(store, base, older, bad) == older.fisher
    (line,) = logs
    assert (line["log_level"], line["code"], line["fisher"]) == ("warning", code, bad.event_id)
    assert line["reason"] == str(refused.value)
    assert choose(store, base, bad) is None


def test_a_store_that_is_away_is_waited_for(store: ArtifactStore, base: ReleaseChanged, cloud: Cloud) -> None:
    away = Artifact(url="file:///away/not/mounted/fisher.safetensors", sha256="1" * 64, size=1)
    with pytest.raises(TransientError, match="can't be reached"):
        choose(store, base, cloud.measured(1, 30), event(away, base.package.sha256))
