from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import shaded_examples
from medloop_model.architecture import Architecture
from medloop_model.checkpoint import load_package, save_package, save_teacher
from medloop_model.network import BiTMedViT
from medloop_model.statistics import Reference
from medloop_model.training.export import export_package, export_teacher
from medloop_model.training.streaming import StreamingLearner
from medloop_schemas import (
    AdaptationRequested,
    CandidateTrained,
    Diagnosis,
    Event,
    ExampleLabelled,
    InvalidEvent,
    ReleaseChanged,
    ReleaseStage,
    Strategy,
)
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.catalog import ReleaseCatalog
from medloop_services.online_learner.checkpoints import Checkpoints
from medloop_services.online_learner.learning import Learning
from medloop_services.online_learner.settings import LearnerSettings
from medloop_services.online_learner.state import LearningState
from medloop_services.online_learner.trainer import StreamingTrainer, open_streaming_learner
from shaded_examples import CLASSES, DEVICE, EPOCH

NONE = Checkpoints(Path("/dev/null/no-folder"))
"""A disk that takes nothing: everything is taught from the beginning."""
SETTINGS = LearnerSettings(
    batch_size=4, labels_shallow=8, labels_distil=8, labels_expand=8, checkpoint_every=1
)
TINY = Architecture(
    image_size=8, channels=1, patch_size=4, width=12, depth=2, heads=2, mlp_ratio=2, classes=CLASSES
)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"), cache=tmp_path / "cache")


@pytest.fixture
def base(store: ArtifactStore, tmp_path: Path) -> ReleaseChanged:
    network = BiTMedViT(TINY, seed=1)
    save_package(export_package(network, {}), tmp_path / "model.safetensors")
    teacher = BiTMedViT(TINY.full_precision(), seed=2)
    save_teacher(export_teacher(teacher, {}), tmp_path / "teacher.safetensors")
    return ReleaseChanged(
        time=EPOCH,
        site_id="ward",
        number=0,
        version="ward-0",
        stage=ReleaseStage.STABLE,
        package=store.put(tmp_path / "model.safetensors"),
        teacher=store.put(tmp_path / "teacher.safetensors"),
        classes=CLASSES,
        reason="a test",
    )


def request(diagnosis: Diagnosis, strategy: Strategy) -> AdaptationRequested:
    return AdaptationRequested(
        time=EPOCH,
        site_id="ward",
        diagnosis=diagnosis,
        strategy=strategy,
        base_version="ward-0",
        onset={DEVICE: 20},
        new_classes={7: "nodule"} if strategy is Strategy.EXPAND_HEAD else {},
        detector="mmd",
        evidence=("a test",),
    )


SHALLOW = request(Diagnosis.DATA_DRIFT, Strategy.SHALLOW_EWC)
DISTIL = request(Diagnosis.CONCEPT_DRIFT, Strategy.DISTIL_ALL)
EXPAND = request(Diagnosis.NEW_CLASS, Strategy.EXPAND_HEAD)


def example(sequence: int) -> ExampleLabelled:
    return shaded_examples.example(sequence, new_class_from=20)


def learn(
    store: ArtifactStore,
    base: ReleaseChanged,
    asked: AdaptationRequested,
    checkpoints: Checkpoints = NONE,
    *,
    killed: bool = False,
    more: Mapping[int, ExampleLabelled] = MappingProxyType({}),
) -> tuple[LearningState, CandidateTrained]:
    """Run a learner over fifty examples; a kill loses everything but the state and the checkpoints."""
    catalog = ReleaseCatalog()
    catalog.apply(base)
    events: list[Event] = [
        base,
        *[example(i) for i in range(22)],
        asked,
        *[more.get(i, example(i)) for i in range(22, 60)],
    ]
    state, candidates = LearningState(), []

    def fresh() -> Learning:
        trainer = StreamingTrainer(store, SETTINGS, checkpoints, open_streaming_learner)
        return Learning(SETTINGS, trainer, catalog.release_of)

    learning = fresh()
    for event in events:
        if killed and state.adaptation is not None and state.adaptation.trained == SETTINGS.batch_size:
            learning, killed = fresh(), False
            state = LearningState.model_validate_json(state.model_dump_json())
        state, outputs = learning.step(state, event)
        candidates += [made for made in outputs if isinstance(made, CandidateTrained)]
    assert not killed, "training went by without a moment to be killed in"
    (candidate,) = candidates
    return state, candidate


@pytest.mark.parametrize("asked", [SHALLOW, DISTIL, EXPAND], ids=lambda asked: asked.strategy)
@pytest.mark.parametrize("kept", [False, True], ids=["from the beginning", "from a checkpoint"])
def test_a_candidate_is_byte_identical_after_a_kill_in_the_middle_of_training(
    store: ArtifactStore, base: ReleaseChanged, asked: AdaptationRequested, kept: bool, tmp_path: Path
) -> None:
    clean_state, clean = learn(store, base, asked)
    checkpoints = Checkpoints(tmp_path / "learners") if kept else NONE
    state, candidate = learn(store, base, asked, checkpoints, killed=True)
    assert candidate.package.sha256 == clean.package.sha256
    assert candidate == clean
    assert state == clean_state


@pytest.mark.parametrize(
    ("asked", "reason"), [(SHALLOW, "as the new scanner would"), (EXPAND, "the head gains a row")]
)
def test_a_candidate_says_why_it_was_trained_so(
    store: ArtifactStore, base: ReleaseChanged, asked: AdaptationRequested, reason: str
) -> None:
    _, candidate = learn(store, base, asked)
    assert reason in candidate.why[0]
    assert candidate.why_codes[0] == asked.diagnosis
    provenance = load_package(store.fetch(candidate.package)).provenance
    assert provenance["why"] == list(candidate.why)
    assert provenance["why_codes"] == list(candidate.why_codes)
    assert len(candidate.why_codes) == len(candidate.why)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def interrupted(
    store: ArtifactStore, base: ReleaseChanged, checkpoints: Checkpoints, labels: int
) -> tuple[LearningState, Learning]:
    """A learner of so many new labels, none held back, and the state it left when it was killed."""
    catalog = ReleaseCatalog()
    catalog.apply(base)
    more = SETTINGS.model_copy(update={"labels_shallow": 64, "checkpoint_every": 2})
    trainer = StreamingTrainer(store, more, checkpoints, open_streaming_learner)
    learning, state = Learning(more, trainer, catalog.release_of), LearningState()
    new = [each for each in map(example, range(20, 200)) if not each.held_back and each.class_index < 2]
    for event in (base, *[example(i) for i in range(20)], SHALLOW, *new[:labels]):
        state, _ = learning.step(state, event)
    trainer = StreamingTrainer(store, more, checkpoints, open_streaming_learner)
    return state, Learning(more, trainer, catalog.release_of)


def steps_taken(
    learning: Learning, state: LearningState, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, LearningState]:
    """How many mini-batches a learner is taught to train on one more."""
    taught: list[int] = []
    step = StreamingLearner.step

    def counted(learner: StreamingLearner, *given: Any) -> Any:
        taught.append(1)
        return step(learner, *given)

    monkeypatch.setattr(StreamingLearner, "step", counted)
    last = int(max(state.examples))
    more = [each for each in map(example, range(200, 260)) if not each.held_back and each.class_index < 2]
    for event in more[: SETTINGS.batch_size]:
        state, _ = learning.step(state, event)
    assert int(max(state.examples)) > last
    monkeypatch.setattr(StreamingLearner, "step", step)
    return len(taught), state


def test_a_restart_goes_on_from_the_last_checkpoint(
    store: ArtifactStore, base: ReleaseChanged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path / "learners")
    state, resumed = interrupted(store, base, checkpoints, labels=5 * SETTINGS.batch_size)
    assert len(files(tmp_path / "learners")) == 2
    taught, after = steps_taken(resumed, state, monkeypatch)
    assert taught == 2, "the fifth mini-batch, which came after the checkpoint, and the new one"
    state, anew = interrupted(store, base, NONE, labels=5 * SETTINGS.batch_size)
    taught, from_the_beginning = steps_taken(anew, state, monkeypatch)
    assert taught == 6
    assert after == from_the_beginning


@pytest.mark.parametrize("damage", ["gone", "cut", "foreign", "ahead"])
def test_a_checkpoint_that_is_of_no_use_means_an_earlier_one_or_the_beginning(
    store: ArtifactStore,
    base: ReleaseChanged,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    checkpoints = Checkpoints(tmp_path / "learners")
    state, _ = interrupted(store, base, NONE, labels=4 * SETTINGS.batch_size)
    labels = 6 if damage == "ahead" else 4
    _, resumed = interrupted(store, base, checkpoints, labels=labels * SETTINGS.batch_size)
    earlier, last = files(tmp_path / "learners")
    if damage == "gone":
        last.unlink()
    elif damage == "cut":
        last.write_bytes(last.read_bytes()[:-100])
    elif damage == "foreign":
        last.write_bytes(earlier.read_bytes())
    taught, after = steps_taken(resumed, state, monkeypatch)
    assert taught == (1 if damage == "ahead" else 3)
    _, anew = interrupted(store, base, NONE, labels=0)
    assert after == steps_taken(anew, state, monkeypatch)[1]


def test_a_corrected_label_of_a_rehearsed_image_reaches_the_learner_and_the_record(
    store: ArtifactStore, base: ReleaseChanged
) -> None:
    old = next(i for i in range(20) if not example(i).held_back)
    correction = example(old).model_copy(
        update={"label_sequence": 30, "revision": 2, "class_index": 1 - old % 2}
    )
    correction = correction.model_copy(update={"class_name": CLASSES[correction.class_index]})
    _, plain = learn(store, base, SHALLOW)
    _, corrected = learn(store, base, SHALLOW, more={30: correction})
    assert (plain.labels_corrected, corrected.labels_corrected) == (0, 1)
    assert corrected.labels_used == plain.labels_used
    assert corrected.version != plain.version
    assert load_package(store.fetch(corrected.package)).provenance["labels_corrected"] == 1


def test_a_candidate_is_a_whole_package_named_by_its_digest(
    store: ArtifactStore, base: ReleaseChanged
) -> None:
    _, candidate = learn(store, base, SHALLOW)
    package = load_package(store.fetch(candidate.package), parts=("packed", "latent", "fisher", "reference"))
    assert candidate.version == f"ward-{candidate.package.sha256[:12]}"
    assert package.architecture.classes == CLASSES
    assert set(package.fisher) <= set(package.latent)
    assert Reference.from_tensors(package.reference).names
    assert package.provenance["base_version"] == "ward-0"
    assert package.provenance["labels_used"] == 8
    assert candidate.package.sha256 != base.package.sha256


def test_an_expanded_candidate_knows_the_new_class_by_its_place_in_the_model(
    store: ArtifactStore, base: ReleaseChanged
) -> None:
    _, candidate = learn(store, base, EXPAND)
    assert candidate.classes == (*CLASSES, "nodule")
    assert load_package(store.fetch(candidate.package)).architecture.classes == candidate.classes


def test_without_a_teacher_and_fisher_the_model_is_adapted_from_labels_alone(
    store: ArtifactStore, base: ReleaseChanged
) -> None:
    _, candidate = learn(store, base.model_copy(update={"teacher": None}), DISTIL)
    assert candidate.labels_used == 8


def test_a_base_that_is_no_model_is_refused_with_its_file(
    store: ArtifactStore, base: ReleaseChanged, tmp_path: Path
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no model at all")
    broken = base.model_copy(update={"package": store.put(tmp_path / "broken.safetensors")})
    with pytest.raises(InvalidEvent, match="safetensors"):
        learn(store, broken, SHALLOW)


def test_a_teacher_that_lacks_a_class_is_left_out(
    store: ArtifactStore, base: ReleaseChanged, tmp_path: Path
) -> None:
    expanded = base.model_copy(update={"classes": (*CLASSES, "nodule")})
    wider = replace(TINY, classes=(*CLASSES, "nodule"))
    path = tmp_path / "wider.safetensors"
    save_package(export_package(BiTMedViT(wider, seed=1), {}), path)
    _, candidate = learn(store, expanded.model_copy(update={"package": store.put(path)}), DISTIL)
    assert candidate.classes == (*CLASSES, "nodule")
