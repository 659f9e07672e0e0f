"""From a report to a candidate, on images whose mean grey tells the class."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from medloop_model.architecture import Architecture
from medloop_model.checkpoint import load_package, save_package, save_teacher
from medloop_model.engine import Engine
from medloop_model.errors import ShapeError
from medloop_model.statistics import Reference
from medloop_model.training.pipeline import (
    Candidate,
    MonitoringReport,
    PipelineSettings,
    auto_tuning_pipeline,
    teach,
)
from medloop_model.training.pretraining import PretrainSettings, pretrain
from medloop_model.training.selector import Bounds, Cause
from medloop_model.training.strategies import measured_plan
from medloop_model.training.tuning import Trial, TuningSettings
from medloop_model.training.validation import Examples, answer, held_out
from medloop_model.training.verdict import Limits

TINY = Architecture(8, 1, 4, 16, 1, 2, 2, ("dark", "bright"))
SETTINGS = PipelineSettings(limits=Limits(fewest_studies=12))


def shades(count: int, seed: int, *, classes: int = 2, mix: list[float] | None = None) -> Examples:
    draw = np.random.default_rng(seed)
    labels = draw.choice(classes, size=count, p=mix)
    images = draw.integers(0, 80, (count, 8, 8)) + 70 * labels[:, None, None]
    return Examples(images.astype(np.uint8), labels, np.array([f"{seed}/{n}" for n in range(count)]))


def inverted(shown: Examples) -> Examples:
    """The same as another scanner shows it: black is white."""
    return replace(shown, images=255 - shown.images)


NOTHING = shades(0, 0)
OLD, NEW = shades(120, 3), inverted(shades(240, 4))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    made = pretrain(
        *(shades(200, 0).images, shades(200, 0).labels),
        *(shades(50, 1).images, shades(50, 1).labels),
        TINY,
        settings=PretrainSettings(teacher_steps=60, student_steps=60, batch_size=16, fisher_images=16),
    )
    folder = tmp_path_factory.mktemp("home")
    save_package(made.package, folder / "model.safetensors")
    save_teacher(made.teacher, folder / "teacher.safetensors")
    return folder / "model.safetensors", folder / "teacher.safetensors"


def report(cause: Cause = Cause.DATA_DRIFT, old: Examples = OLD, new: Examples = NEW, **more: object):
    unlabelled = more.pop("unlabelled", NOTHING.images)
    return MonitoringReport(cause, ("scanner-1",), old, new, unlabelled, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def candidate(home: tuple[Path, Path]) -> Candidate:
    return auto_tuning_pipeline(report(), *home, SETTINGS, clock=lambda: 0.0)


def test_a_new_scanner_gives_a_candidate_that_passes(candidate: Candidate) -> None:
    assert candidate.verdict.passed, candidate.verdict.reason
    new, old = candidate.evidence.validation.new, candidate.evidence.validation.old
    assert new.candidate.balanced_accuracy.value > new.base.balanced_accuracy.value + 0.3
    assert set(new.candidate.recall) == {"dark", "bright"}
    assert old.candidate.balanced_accuracy.value > 0.85
    assert candidate.package.provenance["diagnosis"] == "data-drift"


def test_it_judges_by_the_studies_it_did_not_train_on(candidate: Candidate) -> None:
    judging = sum(held_out(str(study)) for study in NEW.studies)
    assert candidate.evidence.validation.new.studies == judging
    assert candidate.evidence.new_labels == len(NEW) - judging
    assert candidate.evidence.old_labels == sum(not held_out(str(study)) for study in OLD.studies)


def test_what_it_hands_over_can_be_served_and_watched(candidate: Candidate, tmp_path: Path) -> None:
    save_package(candidate.package, tmp_path / "candidate.safetensors")
    again = load_package(
        tmp_path / "candidate.safetensors", parts=("packed", "latent", "fisher", "reference")
    )
    assert Engine(again)(NEW.images[:4]).logits.shape == (4, 2)
    assert set(again.fisher) == set(again.latent)
    assert len(Reference.from_tensors(again.reference).labels) == len(NEW)
    json.dumps(candidate.as_json())


def test_the_same_report_gives_the_same_bytes(
    home: tuple[Path, Path], candidate: Candidate, tmp_path: Path
) -> None:
    again = auto_tuning_pipeline(report(), *home, SETTINGS, clock=lambda: 0.0)
    assert again.as_json() == candidate.as_json()
    digests = {save_package(each.package, tmp_path / name) for each, name in ((candidate, "a"), (again, "b"))}
    assert len(digests) == 1


def test_a_new_class_is_learned_from_its_first_images(home: tuple[Path, Path]) -> None:
    candidate = auto_tuning_pipeline(
        report(Cause.NEW_CLASS, new=shades(160, 5, classes=3), new_classes=("white",)), *home, SETTINGS
    )
    assert candidate.package.architecture.classes == ("dark", "bright", "white")
    assert candidate.evidence.validation.new.base.recall["white"].value == 0.0
    assert candidate.evidence.validation.new.candidate.recall["white"].value > 0.6


def test_under_a_new_policy_old_labels_do_not_judge(home: tuple[Path, Path]) -> None:
    swapped = replace(shades(240, 4), labels=1 - shades(240, 4).labels)
    candidate = auto_tuning_pipeline(report(Cause.CONCEPT_DRIFT, new=swapped), *home, SETTINGS)
    assert candidate.evidence.validation.old is None
    assert any("keeps to the old policy" in reason.sentence for reason in candidate.choice.reasons)


def test_nothing_is_done_about_a_broken_device(home: tuple[Path, Path]) -> None:
    candidate = auto_tuning_pipeline(report(Cause.SENSOR_FAULT), *home, SETTINGS)
    assert candidate.package is None
    assert not candidate.verdict.passed
    assert "no pictures" in candidate.verdict.reason


def test_other_patients_move_the_answers_and_no_weight_but_the_heads(home: tuple[Path, Path]) -> None:
    blurred = replace(OLD, images=(OLD.images // 3 + 70).astype(np.uint8))
    many = shades(400, 6, mix=[0.95, 0.05])
    more = shades(300, 7, mix=[0.95, 0.05]).images
    candidate = auto_tuning_pipeline(
        report(Cause.PRIOR_SHIFT, old=blurred, new=many, unlabelled=more), *home, SETTINGS
    )
    assert candidate.evidence.new_labels == 0
    assert candidate.evidence.priors["dark"] == pytest.approx(0.95, abs=0.06)
    base = load_package(home[0], parts=("latent",))
    changed = {
        name for name, tensor in base.latent.items() if (tensor != candidate.package.latent[name]).any()
    }
    assert changed <= {"head.weight", "head.bias"}
    assert candidate.evidence.temperature != 1
    assert candidate.package.provenance["temperature"] == candidate.evidence.temperature


def test_priors_alone_move_the_bias_alone(home: tuple[Path, Path]) -> None:
    many = shades(400, 6, mix=[0.95, 0.05])
    candidate = auto_tuning_pipeline(
        report(Cause.PRIOR_SHIFT, old=NOTHING, new=NOTHING, unlabelled=many.images), *home, SETTINGS
    )
    assert not candidate.verdict.passed  # without labels nothing is shown
    base = answer(load_package(home[0]), many.images)
    priors = np.array(list(candidate.evidence.priors.values()))
    moved = base * priors
    np.testing.assert_allclose(
        answer(candidate.package, many.images), moved / moved.sum(axis=1, keepdims=True), atol=5e-3
    )


def test_new_priors_need_images(home: tuple[Path, Path]) -> None:
    with pytest.raises(ShapeError, match="new priors need images"):
        auto_tuning_pipeline(report(Cause.PRIOR_SHIFT, old=NOTHING, new=NOTHING), *home, SETTINGS)


def test_with_few_labels_nothing_is_trained(home: tuple[Path, Path]) -> None:
    candidate = auto_tuning_pipeline(report(new=NEW.select(slice(10))), *home, SETTINGS)
    assert candidate.package is None
    assert "are too few: 16 are needed" in candidate.verdict.reason


def test_of_no_label_nothing_is_learned_whatever_the_bounds(home: tuple[Path, Path]) -> None:
    careless = replace(SETTINGS, bounds=Bounds(fewest_labels=0))
    candidate = auto_tuning_pipeline(report(new=NOTHING), *home, careless)
    assert candidate.package is None
    assert "0 labelled images since the change are too few: 1 are needed" in candidate.verdict.reason


def test_what_a_few_studies_show_is_not_enough(home: tuple[Path, Path]) -> None:
    candidate = auto_tuning_pipeline(report(new=NEW.select(slice(32))), *home, SETTINGS)
    assert candidate.package is not None
    assert not candidate.verdict.passed
    assert "held-out studies since the change are too few" in candidate.verdict.reason


def test_a_label_outside_the_head_is_refused_without_a_new_class(home: tuple[Path, Path]) -> None:
    with pytest.raises(ShapeError, match="classes are"):
        auto_tuning_pipeline(report(new=shades(100, 5, classes=3)), *home, SETTINGS)


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_label_outside_the_head_is_refused_where_nothing_is_trained(
    home: tuple[Path, Path], side: str
) -> None:
    unlike = {side: shades(100, 5, classes=3)}
    with pytest.raises(ShapeError, match="classes are"):
        auto_tuning_pipeline(report(Cause.PRIOR_SHIFT, **unlike), *home, SETTINGS)


def counting() -> Callable[[], float]:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1
        return now

    return clock


def test_a_search_is_within_its_budget_and_repeats_by_its_clock(home: tuple[Path, Path]) -> None:
    searching = replace(SETTINGS, tuning=TuningSettings(seconds=3, trials=20))
    little = report(old=OLD.select(slice(24)), new=NEW.select(slice(64)))
    told: list[Trial] = []
    one = auto_tuning_pipeline(little, *home, searching, clock=counting(), progress=told.append)
    other = auto_tuning_pipeline(little, *home, searching, clock=counting())
    assert one.as_json() == other.as_json()
    assert 1 < len(told) < 6
    assert one.evidence.tuned.trials == tuple(told)
    plan = one.evidence.tuned.plan
    assert asdict(one.choice.plan) == asdict(plan)
    assert one.package.provenance["plan"]["learning_rate"] == plan.learning_rate


def test_each_mini_batch_is_answered_before_it_is_taught(home: tuple[Path, Path]) -> None:
    base = load_package(home[0], parts=("packed", "latent", "fisher"))
    plan = measured_plan("shallow-ewc", TINY.classes)
    first, *_ = lessons = list(teach(base, None, plan, old=OLD, new=NEW.select(slice(40)), batch_size=16))
    assert [len(lesson.answers) for lesson in lessons] == [16, 32, 40]
    untaught = Engine(base)(NEW.images[:16]).logits
    np.testing.assert_allclose(first.answers.logits, untaught, atol=0.1)


def test_an_answer_about_a_study_that_was_taught_is_not_honest(home: tuple[Path, Path]) -> None:
    base = load_package(home[0], parts=("packed", "latent", "fisher"))
    plan = replace(measured_plan("shallow-ewc", TINY.classes), ewc_lambda=0.0)
    again = NEW.select(np.array([*range(16), *range(8), *range(16, 24)]))
    *_, lesson = teach(base, None, plan, old=OLD, new=again, batch_size=16)
    np.testing.assert_array_equal(lesson.answers.labels, NEW.labels[:24])


def test_a_candidate_is_softened_only_if_its_calibration_is_ruined(
    home: tuple[Path, Path], candidate: Candidate
) -> None:
    assert candidate.evidence.temperature == 1.0
    strict = replace(SETTINGS, limits=replace(SETTINGS.limits, calibration_tolerance=-1.0))
    noisy = NEW.labels.copy()
    noisy[::4] = 1 - noisy[::4]  # what nobody can know, a model should not be sure of
    softened = auto_tuning_pipeline(report(new=replace(NEW, labels=noisy)), *home, strict)
    assert softened.evidence.temperature > 1
    assert not softened.verdict.passed
