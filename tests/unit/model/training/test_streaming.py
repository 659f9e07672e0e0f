from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from medloop_model.architecture import Architecture
from medloop_model.checkpoint import ModelPackage, save_package, save_teacher
from medloop_model.engine import Engine, EngineOutput
from medloop_model.errors import ShapeError, TeacherMismatch
from medloop_model.network import BiTMedViT
from medloop_model.training.batch import Batch
from medloop_model.training.export import export_teacher, network_from
from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD, SHALLOW_EWC, STRATEGIES
from medloop_model.training.learner_state import LearnerState, load_state, save_state
from medloop_model.training.oracle import OracleSettings, train_oracle
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.pretraining import PretrainSettings, predict, pretrain
from medloop_model.training.strategies import article_plan, measured_plan
from medloop_model.training.streaming import Metrics, StreamingLearner
from medloop_model.training.workbench import Workbench
from numpy.typing import NDArray

Examples = tuple[np.ndarray, np.ndarray]

TINY = Architecture(8, 1, 4, 16, 1, 2, 2, ("dark", "bright"))


def shades(count: int, seed: int, classes: int = 2) -> Examples:
    """Images whose mean grey tells the class."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, count)
    images = draw.integers(0, 80, (count, 8, 8)) + 70 * labels[:, None, None]
    return images.astype(np.uint8), labels


def inverted(examples: Examples) -> Examples:
    """The same as another scanner shows it: black is white."""
    return 255 - examples[0], examples[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelPackage, Path]:
    settings = PretrainSettings(teacher_steps=60, student_steps=60, batch_size=16, fisher_images=16)
    made = pretrain(*shades(200, 0), *shades(50, 1), TINY, settings=settings)
    path = tmp_path_factory.mktemp("home") / "teacher.safetensors"
    save_teacher(made.teacher, path)
    return made.package, path


def batch(examples: Examples, name: str = "new") -> Batch:
    return Batch(*examples, tuple(f"{name}-{number}" for number in range(len(examples[1]))))


def batches(examples: Examples, size: int = 16) -> list[Batch]:
    whole = batch(examples)
    return [
        Batch(whole.images[i : i + size], whole.labels[i : i + size], whole.ids[i : i + size])
        for i in range(0, len(whole), size)
    ]


def taught(
    learner: StreamingLearner, stream: Sequence[Batch], old: Examples | None = None
) -> tuple[LearnerState, list[Metrics]]:
    state, reports = learner.begin(None if old is None else batch(old, "old")), []
    for each in stream:
        state, metrics = learner.step(state, each)
        reports.append(metrics)
    return state, reports


def adapt(
    home: tuple[ModelPackage, Path | None], plan: TrainingPlan, old: Examples, new: Examples
) -> ModelPackage:
    learner = StreamingLearner(home[0], home[1], plan)
    return learner.package(taught(learner, batches(new), old)[0])


def right(package: ModelPackage, examples: Examples) -> float:
    return float(np.mean(predict(network_from(package), examples[0]).argmax(axis=1) == examples[1]))


def plan_for(strategy: str, classes: tuple[str, ...] = TINY.classes) -> TrainingPlan:
    rate = 2e-2 if strategy == EXPAND_HEAD else 5e-3  # the network is tiny and the streams short
    return replace(measured_plan(strategy, classes), learning_rate=rate, rehearsal_steps=5)


def test_a_new_scanner_is_learned_and_the_old_one_kept(home: tuple[ModelPackage, Path]) -> None:
    new_test, old_test = inverted(shades(100, 5)), shades(100, 6)
    assert right(home[0], new_test) < 0.6
    adapted = adapt(home, plan_for(SHALLOW_EWC), shades(64, 3), inverted(shades(128, 4)))
    assert right(adapted, new_test) > 0.9
    assert right(adapted, old_test) > 0.9


def brightened(examples: Examples) -> Examples:
    """The same as a scanner with more light and contrast shows it."""
    return (40 + examples[0] * 1.4).clip(0, 255).astype(np.uint8), examples[1]


def test_a_few_images_of_a_new_scanner_teach_all_that_is_remembered(
    home: tuple[ModelPackage, Path],
) -> None:
    few, test = brightened(shades(16, 4)), brightened(shades(200, 5))
    assert right(home[0], test) < 0.8
    plan = replace(plan_for(SHALLOW_EWC), first_steps=40)
    without = replace(plan, restyled=0, first_steps=0, rehearsal_steps=plan.rehearsal_steps + 40)
    restyled, plain = (right(adapt(home, each, shades(64, 3), few), test) for each in (plan, without))
    assert restyled > 0.95
    assert plain < 0.9


def test_back_at_a_known_scanner_the_model_goes_part_of_the_way(home: tuple[ModelPackage, Path]) -> None:
    plan = replace(plan_for(SHALLOW_EWC), returning=0.25)
    released, learned = (
        adapt(home, each, shades(64, 3), shades(32, 4)) for each in (plan, replace(plan, returning=1.0))
    )
    for name, base in home[0].latent.items():
        part = base + (learned.latent[name] - base) / 4
        assert released.latent[name] == pytest.approx(part, abs=2e-4, rel=2e-3), name  # kept as float16
    elsewhere = brightened(shades(32, 4))
    whole, same = (
        adapt(home, each, shades(64, 3), elsewhere) for each in (plan, replace(plan, returning=1.0))
    )
    assert all(np.array_equal(whole.latent[name], same.latent[name]) for name in home[0].latent)


def test_a_new_policy_is_learned_against_the_teacher(home: tuple[ModelPackage, Path]) -> None:
    swapped = [(images, 1 - labels) for images, labels in (shades(128, 4), shades(100, 5))]
    adapted = adapt(home, plan_for(DISTIL_ALL), shades(64, 3), swapped[0])
    assert right(adapted, swapped[1]) > 0.9


def test_a_new_class_is_learned_by_the_head_alone(home: tuple[ModelPackage, Path]) -> None:
    classes = (*TINY.classes, "white")
    adapted = adapt(home, plan_for(EXPAND_HEAD, classes), shades(64, 3), shades(64, 4, classes=3))
    assert adapted.architecture.classes == classes
    assert right(adapted, shades(150, 5, classes=3)) > 0.9
    for name, tensor in home[0].latent.items():
        if not name.startswith("head."):
            np.testing.assert_array_equal(adapted.latent[name], tensor)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_stream_gives_the_same_bytes(
    home: tuple[ModelPackage, Path], strategy: str, tmp_path: Path
) -> None:
    digests = {
        save_package(adapt(home, plan_for(strategy), shades(32, 3), inverted(shades(48, 4))), tmp_path / run)
        for run in ("first", "second")
    }
    assert len(digests) == 1


def test_exporting_does_not_disturb_the_stream(home: tuple[ModelPackage, Path], tmp_path: Path) -> None:
    first, second = batches(inverted(shades(32, 4)))
    digests = set()
    for exports in (False, True):
        learner = StreamingLearner(*home, plan_for(SHALLOW_EWC))
        state, _ = taught(learner, [first], shades(32, 3))
        if exports:
            learner.package(state)
            torch.manual_seed(123)  # the global generator plays no part
        state, _ = learner.step(state, second)
        digests.add(save_package(learner.package(state), tmp_path / str(exports)))
    assert len(digests) == 1


def test_metrics_count_steps_and_the_loss_falls(home: tuple[ModelPackage, Path]) -> None:
    learner = StreamingLearner(*home, replace(plan_for(SHALLOW_EWC), rehearsal_steps=4))
    state, reports = taught(learner, batches(inverted(shades(16 * 8, 4))))
    assert [report.seen for report in reports] == list(range(16, 129, 16))
    assert [report.steps for report in reports] == list(range(5, 41, 5))
    assert reports[-1].loss < 0.5 * reports[0].loss
    images, labels = inverted(shades(32, 5))
    before, after = (
        (learner.logits(s, images).argmax(axis=1) == labels).mean() for s in (learner.begin(), state)
    )
    assert before < 0.75 < after
    assert 0 < reports[-1].flipped < 0.5


def test_ewc_holds_the_weights_back(home: tuple[ModelPackage, Path]) -> None:
    def way(ewc_lambda: float) -> float:
        plan = replace(plan_for(SHALLOW_EWC), ewc_lambda=ewc_lambda, average_decay=0.0)
        latent = adapt(home, plan, shades(32, 3), inverted(shades(48, 4))).latent
        return sum(float(np.abs(latent[name] - old).sum()) for name, old in home[0].latent.items())

    assert way(100.0) < 0.7 * way(0.0)


def test_retention_keeps_the_answers_to_old_images(home: tuple[ModelPackage, Path]) -> None:
    old = shades(100, 6)
    base = predict(network_from(home[0]), old[0])

    def moved(retention: float) -> float:
        plan = replace(plan_for(SHALLOW_EWC), ewc_lambda=0.0, retention=retention)
        adapted = adapt(home, plan, shades(32, 3), inverted(shades(48, 4)))
        return float(np.abs(predict(network_from(adapted), old[0]) - base).mean())

    assert moved(1.0) < 0.7 * moved(0.0)


def test_retention_does_not_hold_on_to_what_was_wrong(home: tuple[ModelPackage, Path]) -> None:
    images, labels = shades(128, 4)
    plan = replace(plan_for(SHALLOW_EWC), ewc_lambda=0.0, retention=10.0)
    adapted = adapt(home, plan, (images, 1 - labels), (images, 1 - labels))
    assert right(adapted, (images, 1 - labels)) > 0.9


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_articles_rules_take_one_step_a_mini_batch(
    home: tuple[ModelPackage, Path], strategy: str
) -> None:
    classes = (*TINY.classes, "white") if strategy == EXPAND_HEAD else TINY.classes
    plan = replace(article_plan(strategy, classes), alpha=1.0 if strategy == EXPAND_HEAD else 0.7)
    learner = StreamingLearner(home[0], home[1], plan)
    _, reports = taught(learner, batches(shades(48, 4)), shades(32, 3))
    assert [report.steps for report in reports] == [1, 2, 3]
    assert all(np.isfinite(report.loss) for report in reports)


def test_no_old_example_is_needed(home: tuple[ModelPackage, Path]) -> None:
    learner = StreamingLearner(home[0], home[1], plan_for(DISTIL_ALL))
    _, (metrics,) = taught(learner, [batch(shades(5, 3))])
    assert (metrics.seen, metrics.steps) == (5, 6)


def test_what_a_plan_lacks_is_said_at_once(home: tuple[ModelPackage, Path]) -> None:
    with pytest.raises(ValueError, match="teacher"):
        StreamingLearner(home[0], None, replace(plan_for(DISTIL_ALL), alpha=0.7))
    with pytest.raises(ValueError, match="Fisher"):
        StreamingLearner(replace(home[0], fisher={}), None, replace(plan_for(SHALLOW_EWC), ewc_lambda=0.1))
    with pytest.raises(ShapeError, match="start with"):
        StreamingLearner(home[0], None, plan_for(SHALLOW_EWC, ("bright", "dark")))
    learner = StreamingLearner(home[0], None, plan_for(SHALLOW_EWC))
    with pytest.raises(ShapeError, match="at least one"):
        learner.step(learner.begin(), batch(shades(0, 0)))


def test_the_oracle_learns_both_domains(home: tuple[ModelPackage, Path]) -> None:
    settings = OracleSettings(steps=60, batch_size=32, learning_rate=5e-3)
    oracle = train_oracle(home[0], shades(100, 3), inverted(shades(100, 4)), TINY.classes, settings)
    assert right(oracle, shades(100, 5)) > 0.9
    assert right(oracle, inverted(shades(100, 6))) > 0.9


def test_a_teacher_that_is_no_teacher_is_refused(tmp_path: Path) -> None:
    teacher = export_teacher(BiTMedViT(TINY.full_precision()), {"seed": 0})
    assert network_from(teacher).architecture == TINY.full_precision()


def same(one: LearnerState, other: LearnerState) -> bool:
    mine, others = one.to_tensors(), other.to_tensors()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_is_pure(home: tuple[ModelPackage, Path], strategy: str) -> None:
    learner = StreamingLearner(*home, plan_for(strategy))
    first, second, third = batches(inverted(shades(48, 4)))
    state, _ = taught(learner, [first], shades(32, 3))
    before = {name: tensor.clone() for name, tensor in state.to_tensors().items()}
    once, _ = learner.step(state, second)
    learner.step(learner.begin(), third)
    assert same(learner.step(state, second)[0], once)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.to_tensors().items())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_goes_on_byte_for_byte_in_another_learner(
    home: tuple[ModelPackage, Path], strategy: str, tmp_path: Path
) -> None:
    stream = batches(inverted(shades(48, 4)))
    learner = StreamingLearner(*home, plan_for(strategy))
    halfway, _ = taught(learner, stream[:2], shades(32, 3))
    save_state(halfway, tmp_path / "state", "me")
    whole, _ = learner.step(halfway, stream[2])
    found, other = load_state(tmp_path / "state", "me"), StreamingLearner(*home, plan_for(strategy))
    assert found is not None
    resumed, _ = other.step(found, stream[2])
    assert same(resumed, whole)
    digests = {
        save_package(each.package(state), tmp_path / name)
        for each, state, name in ((learner, whole, "a"), (other, resumed, "b"))
    }
    assert len(digests) == 1


def test_killed_in_the_middle_of_a_step_the_stream_ends_with_the_same_bytes(
    home: tuple[ModelPackage, Path], tmp_path: Path
) -> None:
    stream, path = batches(inverted(shades(48, 4))), tmp_path / "state"
    learner = StreamingLearner(*home, plan_for(SHALLOW_EWC))
    forked = multiprocessing.get_context("fork")
    inside_a_step = forked.Event()

    def run() -> None:
        descend, taken = Workbench.descend, 0

        def stopping(bench: Workbench, loss: torch.Tensor) -> float:
            nonlocal taken
            taken += 1
            if taken == 9:  # the third step of the second mini-batch
                inside_a_step.set()
                time.sleep(60)
            return descend(bench, loss)

        Workbench.descend = stopping  # type: ignore[method-assign]
        state = learner.begin(batch(shades(32, 3), "old"))
        for number, each in enumerate(stream):
            state, _ = learner.step(state, each)
            save_state(state, path, str(number))

    process = forked.Process(target=run)
    process.start()
    assert inside_a_step.wait(60)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    state = load_state(path, "0")
    assert state is not None
    for each in stream[1:]:
        state, _ = learner.step(state, each)
    assert same(state, taught(learner, stream, shades(32, 3))[0])


@pytest.mark.parametrize("domain", ["old", "new"])
def test_a_corrected_label_replaces_the_old_ones_influence(
    home: tuple[ModelPackage, Path], domain: str
) -> None:
    learner = StreamingLearner(*home, plan_for(SHALLOW_EWC))
    state, _ = taught(learner, batches(inverted(shades(16, 4))), shades(8, 3))
    label = getattr(state, domain).label_of[f"{domain}-0"]
    images = inverted(shades(16, 4))[0][:1] if domain == "new" else shades(8, 3)[0][:1]
    corrected, metrics = learner.step(state, Batch(images, np.array([1 - label]), (f"{domain}-0",)))
    assert getattr(corrected, domain).label_of[f"{domain}-0"] == 1 - label
    assert (metrics.corrected, metrics.seen) == (1, 16)
    assert len(corrected.old) == 8
    assert len(corrected.new) == 16
    shown = domain == "new"  # an old image is only rehearsed
    assert metrics.steps - state.steps == learner.plan.rehearsal_steps + shown


def test_a_repeated_label_changes_nothing(home: tuple[ModelPackage, Path]) -> None:
    learner = StreamingLearner(*home, plan_for(SHALLOW_EWC))
    (first,) = batches(inverted(shades(16, 4)))
    state, _ = taught(learner, [first], shades(8, 3))
    again, metrics = learner.step(state, first)
    assert same(again, state)
    assert np.isnan(metrics.loss)


def test_of_two_labels_in_one_batch_the_later_counts(home: tuple[ModelPackage, Path]) -> None:
    learner = StreamingLearner(*home, plan_for(SHALLOW_EWC))
    images = np.repeat(shades(2, 4)[0], [2, 1], axis=0)
    state, metrics = learner.step(learner.begin(), Batch(images, np.array([0, 1, 0]), ("a", "a", "b")))
    assert state.new.label_of == {"a": 1, "b": 0}
    assert (metrics.seen, metrics.corrected) == (2, 0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_without_a_finite_end_is_undone_and_its_batch_quarantined(
    home: tuple[ModelPackage, Path], strategy: str
) -> None:
    plan = plan_for(strategy)
    first, second, third = batches(inverted(shades(48, 4)))
    learner = StreamingLearner(*home, plan)
    state, _ = taught(learner, [first], shades(32, 3))
    diverging = StreamingLearner(*home, replace(plan, learning_rate=1e38, warm_up_steps=0))
    undone, metrics = diverging.step(state, second)
    assert (metrics.quarantined, metrics.seen, metrics.steps) == (16, 16, state.steps)
    assert np.isnan(metrics.loss)
    assert undone.new.ids == state.new.ids
    assert same(replace(undone, quarantined=0), state)
    onward, metrics = learner.step(undone, third)
    assert metrics.quarantined == 16
    assert metrics.seen == 32
    assert np.isfinite(metrics.loss)
    assert learner.package(onward).provenance["quarantined"] == 16


def test_a_full_memory_keeps_both_classes_and_its_bytes(home: tuple[ModelPackage, Path]) -> None:
    one_example = 8 * 8 + 8
    plan = replace(plan_for(SHALLOW_EWC), restyled=0, memory_bytes=2 * 10 * one_example)
    learner = StreamingLearner(*home, plan)
    images, labels = inverted(shades(60, 4))
    rare = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:4]])
    (one, one_labels), (other, other_labels) = shades(30, 3), brightened(shades(10, 2))
    old = Batch(
        np.concatenate([one, other]),
        np.concatenate([one_labels, other_labels]),
        tuple(map(str, range(40))),
        ("first",) * 30 + ("second",) * 10,
    )
    state, metrics = learner.begin(old), None
    for each in batches((images[rare], labels[rare])):
        state, metrics = learner.step(state, each)
    assert metrics is not None
    assert metrics.seen == len(rare)
    assert len(state.new) == len(state.old) == 10
    assert np.bincount(list(state.new.label_of.values())).tolist() == [6, 4]
    assert [state.old.domains.count(name) for name in ("first", "second")] == [5, 5]
    assert state.old.images.nbytes + state.old.labels.nbytes == 10 * one_example
    with pytest.raises(ValueError, match="memory_bytes"):
        StreamingLearner(*home, replace(plan, memory_bytes=2 * one_example - 2))


def test_a_full_memory_has_one_share_for_a_scanner_that_came_back(home: tuple[ModelPackage, Path]) -> None:
    plan = replace(plan_for(SHALLOW_EWC), memory_bytes=2 * 20 * (8 * 8 + 8 + 4 * 2))
    visits = [shades(20, 3), brightened(shades(20, 2)), shades(20, 5)]
    old = Batch(
        np.concatenate([images for images, _ in visits]),
        np.concatenate([labels for _, labels in visits]),
        tuple(map(str, range(60))),
        tuple(name for name in ("home", "bright", "home again") for _ in range(20)),
    )
    assert Counter(StreamingLearner(*home, plan).begin(old).old.domains) == {"home": 10, "bright": 10}


def test_labels_of_one_class_alone_are_kept_and_not_trained_on(home: tuple[ModelPackage, Path]) -> None:
    images, labels = inverted(shades(64, 4))
    dark, bright = images[labels == 0][:16], images[labels == 1][:16]
    learner = StreamingLearner(*home, replace(plan_for(SHALLOW_EWC), first_steps=0))
    state, metrics = learner.step(learner.begin(), batch((dark, np.zeros(16, np.int64)), "dark"))
    assert (metrics.seen, metrics.steps) == (16, 0)
    assert np.isnan(metrics.loss)
    state, metrics = learner.step(state, batch((bright, np.ones(16, np.int64)), "bright"))
    assert (metrics.seen, metrics.steps) == (32, 6)
    # Beside old examples of other classes a run of one class is trained on as it comes.
    _, metrics = learner.step(
        learner.begin(batch(shades(16, 3), "old")), batch((dark, np.zeros(16, np.int64)), "dark")
    )
    assert metrics.steps == 6


def test_images_that_are_a_view_turned_round_are_taken(home: tuple[ModelPackage, Path]) -> None:
    learner = StreamingLearner(home[0], None, TrainingPlan(SHALLOW_EWC, TINY.classes, rehearsal_steps=0))
    images, labels = shades(16, 3)
    turned, copied = images[:, ::-1], images[:, ::-1].copy()
    (one, _), (other, _) = (learner.step(learner.begin(), batch((each, labels))) for each in (turned, copied))
    assert same(one, other)


def test_a_class_outside_the_plan_is_refused(home: tuple[ModelPackage, Path]) -> None:
    learner = StreamingLearner(*home, plan_for(SHALLOW_EWC))
    state = learner.begin()
    with pytest.raises(ShapeError, match="classes"):
        learner.step(state, batch(shades(8, 3, classes=3)))
    with pytest.raises(ShapeError, match="one of each"):
        Batch(*shades(8, 3), ("a",))


@pytest.mark.parametrize(
    "change", [{"classes": ("bright", "dark")}, {"classes": ("dark", "bright", "x")}, {"image_size": 16}]
)
def test_a_teacher_of_another_task_is_refused(
    home: tuple[ModelPackage, Path], change: dict[str, Any], tmp_path: Path
) -> None:
    other = BiTMedViT(replace(TINY, **change).full_precision())
    save_teacher(export_teacher(other, {}), tmp_path / "teacher.safetensors")
    plan = replace(plan_for(DISTIL_ALL), alpha=0.7)
    with pytest.raises(TeacherMismatch, match="the teacher"):
        StreamingLearner(home[0], tmp_path / "teacher.safetensors", plan)


@pytest.mark.parametrize("name", ["head.weight", "blocks.7.fc1.weight"])
def test_fisher_information_of_another_model_is_refused(home: tuple[ModelPackage, Path], name: str) -> None:
    foreign = replace(home[0], fisher={**home[0].fisher, name: np.ones((5, 5), np.float16)})
    with pytest.raises(ShapeError, match="another model"):
        StreamingLearner(foreign, None, plan_for(SHALLOW_EWC))


def test_fisher_information_that_is_not_whole_is_refused(home: tuple[ModelPackage, Path]) -> None:
    some = {name: values for name, values in home[0].fisher.items() if name != "head.bias"}
    with pytest.raises(ShapeError, match=r"of head\.bias is missing"):
        StreamingLearner(replace(home[0], fisher=some), None, plan_for(SHALLOW_EWC))
    broken = home[0].fisher | {"head.bias": np.full_like(home[0].fisher["head.bias"], np.nan)}
    with pytest.raises(ShapeError, match=r"of head\.bias holds a NaN"):
        StreamingLearner(replace(home[0], fisher=broken), None, plan_for(SHALLOW_EWC))


def test_a_class_that_arrives_as_a_correction_is_started(home: tuple[ModelPackage, Path]) -> None:
    images, labels = shades(32, 3)
    learner = StreamingLearner(*home, plan_for(EXPAND_HEAD, (*TINY.classes, "striped")))
    striped = np.tile(np.array([0, 255], np.uint8), (4, 8, 4))
    images[:4], ids = striped, tuple(f"old-{number}" for number in range(32))
    state = learner.begin(Batch(images, labels, ids))
    for _ in range(8):
        state, _ = learner.step(state, Batch(images[:4], np.full(4, 2), ids[:4]))
    assert state.imprinted == 3
    assert (learner.logits(state, striped).argmax(axis=1) == 2).all()


def test_where_nothing_could_be_learned_the_base_is_the_candidate(home: tuple[ModelPackage, Path]) -> None:
    learner = StreamingLearner(home[0], None, plan_for(SHALLOW_EWC))
    same_weights = learner.package(learner.begin())
    for name, tensor in home[0].latent.items():
        np.testing.assert_array_equal(same_weights.latent[name], tensor)
    for name, values in home[0].fisher.items():
        np.testing.assert_array_equal(same_weights.fisher[name], values)


def test_a_frozen_backbone_runs_once_an_image(
    home: tuple[ModelPackage, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    answer = Engine.__call__

    def counted(engine: Engine, images: NDArray[np.uint8]) -> EngineOutput:
        seen.append(len(images))
        return answer(engine, images)

    def refused(*_: object) -> torch.Tensor:
        raise AssertionError("a frozen backbone ran for a gradient")

    learner = StreamingLearner(home[0], None, plan_for(EXPAND_HEAD, (*TINY.classes, "white")))
    monkeypatch.setattr(Engine, "__call__", counted)
    monkeypatch.setattr(BiTMedViT, "tokens", refused)
    taught(learner, batches(shades(48, 4, classes=3)), shades(20, 3))
    assert sum(seen) == 48 + 20


ROSY, BLUISH = (1.0, 0.6, 0.6), (0.5, 0.5, 1.0)


def stained(count: int, seed: int, tint: tuple[float, float, float]) -> Examples:
    images, labels = shades(count, seed)
    return (images[..., None] * np.array(tint)).astype(np.uint8), labels


@pytest.fixture(scope="module")
def laboratory() -> ModelPackage:
    settings = PretrainSettings(teacher_steps=60, student_steps=60, batch_size=16, fisher_images=16)
    coloured = replace(TINY, channels=3)
    return pretrain(*stained(200, 0, ROSY), *stained(50, 1, ROSY), coloured, settings=settings).package


def slide_plan() -> TrainingPlan:
    plan = measured_plan(SHALLOW_EWC, TINY.classes, slides=True)
    return replace(plan, learning_rate=5e-3)


def test_another_laboratory_moves_all_of_a_slide_model_and_the_old_one_is_kept(
    laboratory: ModelPackage,
) -> None:
    adapted = adapt((laboratory, None), slide_plan(), stained(64, 3, ROSY), stained(64, 4, BLUISH))
    for name in ("blocks.0.fc1.weight", "head.weight"):
        assert not np.array_equal(adapted.latent[name], laboratory.latent[name])
    assert right(adapted, stained(100, 5, ROSY)) > 0.9
    assert right(adapted, stained(100, 6, BLUISH)) > 0.9


def test_a_slide_model_takes_corrections_of_old_cells_first(laboratory: ModelPackage) -> None:
    learner, old = StreamingLearner(laboratory, None, slide_plan()), stained(32, 3, ROSY)
    state = learner.begin(batch(old, "old"))
    corrected = Batch(old[0][:2], 1 - old[1][:2], ("old-0", "old-1"))
    state, metrics = learner.step(state, corrected)
    assert (metrics.corrected, metrics.seen) == (2, 0)


def test_a_head_in_closed_form_waits_for_every_class(laboratory: ModelPackage) -> None:
    images, labels = stained(32, 4, BLUISH)
    dark = labels == 0

    def heads(shown: Examples) -> list[np.ndarray]:
        found = []
        for discriminant_images in (0, 64):
            plan = replace(slide_plan(), discriminant_images=discriminant_images)
            learner = StreamingLearner(laboratory, None, plan)
            state, _ = taught(learner, [batch(shown)])
            found.append(learner.package(state).latent["head.weight"])
        return found

    trained, placed = heads((images[dark], labels[dark]))
    np.testing.assert_array_equal(trained, placed)
    trained, placed = heads((images, labels))
    assert not np.array_equal(trained, placed)


def test_an_oracle_of_slides_learns_both_laboratories(laboratory: ModelPackage) -> None:
    settings = OracleSettings(steps=40, batch_size=24, learning_rate=3e-3)
    old, new = stained(64, 3, ROSY), stained(64, 4, BLUISH)
    oracle = train_oracle(laboratory, old, new, TINY.classes, settings)
    assert right(oracle, stained(100, 5, ROSY)) > 0.9
    assert right(oracle, stained(100, 6, BLUISH)) > 0.9
