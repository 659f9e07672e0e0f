from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_model.errors import ShapeError, StudyOnBothSides
from medloop_model.training.validation import Examples, compare, held_out, hold_out, require_apart
from medloop_schemas.example import held_back

NAMES = ("normal", "opacity")


def examples(labels: list[int], studies: list[str] | None = None) -> Examples:
    names = studies or [f"study-{number}" for number in range(len(labels))]
    return Examples(np.zeros((len(labels), 2, 2), np.uint8), np.array(labels), np.array(names))


def sure(classes: list[int], confidence: float = 0.9) -> np.ndarray:
    return np.where(np.eye(2)[classes] > 0, confidence, 1 - confidence)


@given(st.text(max_size=20))
def test_a_study_is_held_out_here_where_the_publisher_holds_it_back(study: str) -> None:
    assert held_out(study) == held_back(study)


@given(st.lists(st.integers(0, 30), max_size=60))
def test_no_study_is_on_both_sides_and_none_is_lost(numbers: list[int]) -> None:
    shown = examples([number % 2 for number in numbers], [f"s{number}" for number in numbers])
    training, judging = hold_out(shown)
    assert not set(training.studies) & set(judging.studies)
    assert sorted([*training.studies, *judging.studies]) == sorted(shown.studies)
    assert all(held_out(str(study)) for study in judging.studies)


def test_a_quarter_is_held_out_and_other_purposes_hold_out_others() -> None:
    names = [f"study-{number}" for number in range(2000)]
    judging = {name for name in names if held_out(name)}
    tuning = {name for name in names if held_out(name, "tuning")}
    assert len(judging) == pytest.approx(500, abs=60)
    assert len(judging & tuning) == pytest.approx(125, abs=40)


def test_to_judge_by_what_was_trained_on_is_refused() -> None:
    require_apart(["a", "b"], ["c"])
    with pytest.raises(StudyOnBothSides, match="2 studies, b among them"):
        require_apart(["a", "b", "c"], ["c", "b"])
    with pytest.raises(StudyOnBothSides, match="study-1"):
        compare(sure([0, 1]), sure([0, 1]), examples([0, 1]), NAMES, trained=["study-1"], confidence=0.8)


def test_each_image_needs_a_label_and_a_study() -> None:
    with pytest.raises(ShapeError, match="2 images, 1 labels and 2 studies"):
        Examples(np.zeros((2, 2, 2), np.uint8), np.array([0]), np.array(["a", "b"]))


def test_both_models_are_measured_on_the_same_examples() -> None:
    labels = [0] * 30 + [1] * 10
    base = sure([0] * 40)
    candidate = sure([0] * 27 + [1] * 3 + [1] * 8 + [0] * 2)
    found = compare(base, candidate, examples(labels), NAMES, trained=(), confidence=0.8)
    assert (found.images, found.studies) == (40, 40)
    assert found.base.balanced_accuracy.value == 0.5
    assert found.candidate.balanced_accuracy.value == pytest.approx((0.9 + 0.8) / 2)
    assert found.candidate.accuracy.value == pytest.approx(35 / 40)
    assert {name: recall.value for name, recall in found.candidate.recall.items()} == pytest.approx(
        {"normal": 0.9, "opacity": 0.8}
    )
    assert found.gain.value == pytest.approx(0.35)
    assert found.gain.low < found.gain_bounds[0] < found.gain.value < found.gain_bounds[1] < found.gain.high
    assert found.base.calibration_error.value == pytest.approx(0.15)
    assert found.growth.value == pytest.approx(0.025 - 0.15)


def test_a_gain_in_accuracy_counts_classes_as_they_come() -> None:
    labels = [0] * 30 + [1] * 10
    found = compare(
        sure([0] * 40), sure([1] * 40), examples(labels), NAMES, trained=(), confidence=0.8, balanced=False
    )
    assert found.gain.value == pytest.approx(-0.5)
    assert found.in_words().startswith("accuracy 75.0% → 25.0% on 40 studies")


def test_the_same_answers_gain_nothing_for_sure() -> None:
    found = compare(sure([0, 1, 1]), sure([0, 1, 1]), examples([0, 1, 0]), NAMES, trained=(), confidence=0.8)
    assert found.gain_bounds == found.growth_bounds == (0.0, 0.0)


def test_many_images_of_a_few_studies_leave_a_figure_unsure() -> None:
    labels, base = [0, 1] * 30, sure([0] * 60)
    candidate = sure([0, 1] * 20 + [1, 0] * 10)
    one_each = compare(base, candidate, examples(labels), NAMES, trained=(), confidence=0.8)
    names = [f"study-{number // 20}" for number in range(60)]
    three = compare(base, candidate, examples(labels, names), NAMES, trained=(), confidence=0.8)
    assert three.studies == 3
    assert three.gain.value == one_each.gain.value
    assert three.gain.high - three.gain.low > 1.5 * (one_each.gain.high - one_each.gain.low)


def test_a_class_that_only_the_candidate_has_is_never_found_by_the_base() -> None:
    wider = np.array([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
    found = compare(sure([0, 0]), wider, examples([2, 0]), (*NAMES, "nodule"), trained=(), confidence=0.8)
    assert found.base.recall["nodule"].value == 0.0
    assert found.candidate.recall["nodule"].value == 1.0


def test_the_same_seed_gives_the_same_bounds_in_any_order() -> None:
    shown, turned = examples([0, 0, 1, 1]), np.array([3, 1, 0, 2])
    base, candidate = sure([0, 1, 1, 0]), sure([0, 0, 1, 0])
    one = compare(base, candidate, shown, NAMES, trained=(), confidence=0.8, seed=3)
    other = compare(
        base[turned], candidate[turned], shown.select(turned), NAMES, trained=(), confidence=0.8, seed=3
    )
    assert one == other


def test_there_has_to_be_something_to_compare_on() -> None:
    with pytest.raises(ShapeError, match="no example"):
        compare(np.zeros((0, 2)), np.zeros((0, 2)), examples([]), NAMES, trained=(), confidence=0.8)
