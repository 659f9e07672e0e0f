from __future__ import annotations

import numpy as np
import pytest
from medloop_services.publisher.calibration import Answers, compare_calibration

CLASSES = ("normal", "opacity")
LABELS = ["normal"] * 20 + ["opacity"] * 20


def answers(right: int, confidence: float, classes: tuple[str, ...] = CLASSES) -> Answers:
    """Of each class's 20 images the first ones are right; every answer is as sure."""
    wrong = (1 - confidence) / (len(classes) - 1)
    probabilities = np.full((40, len(classes)), wrong, np.float32)
    for place in range(40):
        label = place // 20
        probabilities[place, label if place % 20 < right else 1 - label] = confidence
    return Answers(classes, probabilities)


def test_the_likeliest_class_is_the_answer() -> None:
    assert answers(20, 0.9).names == LABELS
    assert Answers(CLASSES, np.zeros((0, 2), np.float32)).names == []


def test_a_gain_in_accuracy_may_come_with_false_confidence() -> None:
    base, candidate = answers(12, 0.6), answers(16, 1.0)
    found = compare_calibration(LABELS, base, candidate, confidence=0.8)
    assert found.base == pytest.approx(0.0, abs=1e-6)
    assert found.candidate == pytest.approx(0.2)
    assert 0.0 < found.growth_lower < 0.2


def test_the_bound_is_lower_the_surer_it_has_to_be() -> None:
    bounds = [
        compare_calibration(LABELS, answers(12, 0.6), answers(16, 1.0), confidence).growth_lower
        for confidence in (0.5, 0.8, 0.95)
    ]
    assert bounds == sorted(bounds, reverse=True)
    assert len(set(bounds)) == 3


def test_the_same_answers_grow_by_nothing() -> None:
    found = compare_calibration(LABELS, answers(16, 0.9), answers(16, 0.9), confidence=0.8)
    assert found.growth_lower == 0
    assert found.base == found.candidate


def test_a_class_that_the_base_lacks_it_never_finds() -> None:
    labels = ["nodule"] * 40
    wider = np.zeros((40, 3), np.float32)
    wider[:, 2] = 1.0
    candidate = Answers((*CLASSES, "nodule"), wider)
    found = compare_calibration(labels, answers(20, 0.9), candidate, confidence=0.8)
    assert found.base == pytest.approx(0.9)
    assert found.candidate == 0
