"""An adaptation keeps the Fisher information that it opened with, whatever is measured or lost meanwhile."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from medloop_model.architecture import Architecture
from medloop_model.checkpoint import ModelPackage, load_package, save_package
from medloop_model.fisher_file import FisherOrigin, save_fisher
from medloop_model.network import BiTMedViT
from medloop_model.training.export import export_package
from medloop_schemas import (
    AdaptationRequested,
    CandidateTrained,
    Diagnosis,
    FisherMeasured,
    ReleaseChanged,
    ReleaseStage,
    Strategy,
)
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
from medloop_services.bus.processor import KeyedProcessor, Service
from medloop_services.online_learner.app import build
from medloop_services.online_learner.state import LearningState
from shaded_examples import CLASSES, DEVICE, EPOCH, example

TINY = Architecture(8, 1, 4, 12, 2, 2, 2, CLASSES)
REQUEST = AdaptationRequested(
    time=EPOCH,
    site_id="ward",
    diagnosis=Diagnosis.DATA_DRIFT,
    strategy=Strategy.SHALLOW_EWC,
    base_version="ward-0",
    onset={DEVICE: 20},
    detector="mmd",
    evidence=("a test",),
)
SETTINGS = {
    "MEDLOOP_ONLINE_LEARNER_ARTICLE": True,
    "MEDLOOP_ONLINE_LEARNER_BATCH_SIZE": 4,
    "MEDLOOP_ONLINE_LEARNER_LABELS_SHALLOW": 8,
}


class Ward:
    """A site's store, its release, and what is measured of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ArtifactStore(str(folder / "store"), cache=folder / "cache")
        uniform = {name: np.ones(p.shape, np.float16) for name, p in BiTMedViT(TINY).named_parameters()}
        save_package(
            export_package(BiTMedViT(TINY, seed=1), {}, fisher=uniform), folder / "model.safetensors"
        )
        self.base: ModelPackage = load_package(folder / "model.safetensors", parts=("latent",))
        self.release = ReleaseChanged(
            time=EPOCH,
            site_id="ward",
            number=0,
            version="ward-0",
            stage=ReleaseStage.STABLE,
            package=self.store.put(folder / "model.safetensors"),
            classes=CLASSES,
            reason="a test",
        )

    def measured(self, strength: float, days_ago: int) -> FisherMeasured:
        sha256 = self.release.package.sha256
        fisher = {name: np.full(tensor.shape, strength) for name, tensor in self.base.latent.items()}
        path = self.folder / f"fisher-{days_ago}.safetensors"
        save_fisher(self.base, fisher, FisherOrigin("ward-0", sha256, "a", "d" * 64, 8, 0, "a test"), path)
        return FisherMeasured(
            time=EPOCH - timedelta(days=days_ago),
            base_version="ward-0",
            base_sha256=sha256,
            fisher=self.store.put(path),
            images=8,
            data_sha256="d" * 64,
            seed=0,
            command="a test",
        )

    def learner(self, *followed: FisherMeasured) -> Service:
        service = build(Context(self.store, SETTINGS))
        for event in (self.release, *followed):
            for follower in service.followers:
                if isinstance(event, follower.event):
                    follower.apply(event)
        return service


def learning(service: Service) -> KeyedProcessor[LearningState]:
    found = service.processors[1]
    assert isinstance(found, KeyedProcessor)
    return found


def adapt(
    ward: Ward, *followed: FisherMeasured, killed_and_then: tuple[FisherMeasured, ...] | None = None
) -> tuple[LearningState, CandidateTrained]:
    """Run the service's own processor; a kill loses all but the state, and more is measured meanwhile."""
    processor, state = learning(ward.learner(*followed)), LearningState()
    made: list[CandidateTrained] = []
    for event in [ward.release, *map(example, range(22)), REQUEST, *map(example, range(22, 60))]:
        if killed_and_then is not None and state.adaptation is not None and state.adaptation.trained == 4:
            processor, killed_and_then = learning(ward.learner(*followed, *killed_and_then)), None
            state = LearningState.model_validate_json(state.model_dump_json())
        state, outputs = processor.step(state, event)
        made += [each for each in outputs if isinstance(each, CandidateTrained)]
    assert killed_and_then is None
    (candidate,) = made
    return state, candidate


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def test_the_newest_measurement_is_used_and_on_record(ward: Ward) -> None:
    old, new = ward.measured(1.0, 30), ward.measured(80.0, 1)
    state, candidate = adapt(ward, old, new)
    assert state.adaptation is not None
    assert state.adaptation.fisher == new.fisher
    provenance = load_package(ward.store.fetch(candidate.package)).provenance
    assert provenance["fisher_sha256"] == new.fisher.sha256


def test_what_matters_more_moves_less(ward: Ward) -> None:
    def way(candidate: CandidateTrained) -> float:
        latent = load_package(ward.store.fetch(candidate.package), parts=("latent",)).latent
        before = ward.base.latent["patch.weight"].astype(float)
        return float(np.square(latent["patch.weight"].astype(float) - before).sum())

    assert way(adapt(ward, ward.measured(100.0, 1))[1]) < way(adapt(ward, ward.measured(0.0, 2))[1])


def test_an_adaptation_under_way_keeps_its_own_through_a_kill(ward: Ward) -> None:
    old, new = ward.measured(1.0, 30), ward.measured(80.0, 1)
    clean_state, clean = adapt(ward, old)
    state, candidate = adapt(ward, old, killed_and_then=(new,))
    assert candidate == clean
    assert state == clean_state


def test_without_a_measurement_the_package_speaks_for_itself(ward: Ward) -> None:
    state, candidate = adapt(ward)
    assert state.adaptation is not None
    assert state.adaptation.fisher is None
    assert load_package(ward.store.fetch(candidate.package)).provenance["fisher_sha256"] is None
