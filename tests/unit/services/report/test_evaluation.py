"""Accuracy, balanced accuracy, AUC and intervals against hand-made answers and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_services.report.evaluation import balanced_accuracy, score
from sklearn.metrics import balanced_accuracy_score, roc_auc_score


def test_accuracy_counts_right_answers() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
    result = score(probabilities, np.array([0, 1, 1, 1]), ("normal", "opacity"))
    assert result.accuracy.value == pytest.approx(0.75)
    assert result.balanced_accuracy.value == pytest.approx((1 + 2 / 3) / 2)
    assert result.recall == {"normal": 1.0, "opacity": pytest.approx(2 / 3)}
    assert result.accuracy.low <= 0.75 <= result.accuracy.high


def test_a_class_that_the_model_lacks_counts_as_wrong() -> None:
    result = score(np.array([[0.9, 0.1], [0.1, 0.9]], np.float32), np.array([0, 2]), ("a", "b", "new"))
    assert result.recall == {"a": 1.0, "new": 0.0}
    assert result.auc is None


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_agrees_with_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(3), generator.integers(0, 3, 40)])
    # Rounded, so that there are ties.
    probabilities = generator.dirichlet(np.ones(3), len(labels)).round(1).astype(np.float32)
    predicted = probabilities.argmax(axis=1)
    assert balanced_accuracy(predicted, labels) == pytest.approx(balanced_accuracy_score(labels, predicted))
    one_hot = np.eye(3)[labels]
    expected = np.mean([roc_auc_score(one_hot[:, c], probabilities[:, c]) for c in range(3)])
    assert score(probabilities, labels, ("a", "b", "c")).auc == pytest.approx(expected)


def test_intervals_are_the_same_every_time() -> None:
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet(np.ones(2), 50).astype(np.float32)
    labels = generator.integers(0, 2, 50)
    assert score(probabilities, labels, ("a", "b")) == score(probabilities, labels, ("a", "b"))
