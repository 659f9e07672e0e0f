from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from medloop_model.statistics import Reference
from medloop_services.drift_detection.accuracy import IMAGES, AccuracyState, ExpectedAccuracy
from numpy.typing import NDArray


def draw(
    random: np.random.Generator, images: int, hardness: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Margins, and whether the answer is wrong: right with (1 + margin) / 2, as a calibrated model is."""
    margins = random.beta(4 / hardness, 1, images)
    return margins, random.random(images) > (1 + margins) / 2


def reference(seed: int, hardness: float = 1.0, images: int = 512) -> Reference:
    margins, wrong = draw(np.random.default_rng(seed), images, hardness)
    return Reference(
        scalars={"decision.margin": margins.astype(np.float32)},
        embedding=np.zeros((images, 1), np.float32),
        probabilities=np.ones((images, 1), np.float32),
        labels=wrong.astype(np.int64),
        studies=np.arange(images),
    )


def estimator(seed: int = 0) -> ExpectedAccuracy:
    found = ExpectedAccuracy.of(reference(seed))
    assert found is not None
    return found


@pytest.mark.parametrize("hardness", [0.5, 1.0, 2.0, 4.0])
def test_its_interval_covers_the_truth_as_often_as_it_says(hardness: float) -> None:
    covered, centred = [], []
    for seed in range(400):
        random = np.random.default_rng((seed, 1))
        margins, wrong = draw(random, IMAGES, hardness)
        accuracy = estimator(seed)
        found = accuracy.estimate(accuracy.update(AccuracyState(), margins.tolist()))
        assert found is not None
        truth = 1 - wrong.mean()
        covered.append(found.low <= truth <= found.high)
        centred.append(found.expected - truth)
    assert 0.91 <= np.mean(covered) <= 0.99
    assert abs(np.mean(centred)) < 0.02


def test_harder_images_are_expected_to_be_answered_less_well() -> None:
    accuracy = estimator()
    random = np.random.default_rng(3)
    easy, hard = (
        accuracy.estimate(accuracy.update(AccuracyState(), draw(random, IMAGES, hardness)[0].tolist()))
        for hardness in (1.0, 4.0)
    )
    assert easy is not None
    assert hard is not None
    assert hard.high < easy.expected


def test_it_counts_the_latest_images_and_says_how_many() -> None:
    accuracy = estimator()
    state = accuracy.update(AccuracyState(), [0.0] * IMAGES)
    few = accuracy.estimate(accuracy.update(AccuracyState(), [0.99] * 16))
    latest = accuracy.estimate(accuracy.update(state, [0.99] * IMAGES))
    assert few is not None
    assert latest is not None
    assert (few.images, latest.images) == (16, IMAGES)
    assert latest.expected == pytest.approx(few.expected)
    assert few.low < latest.low, "fewer images leave more open"


def test_nothing_is_said_before_the_first_image_or_without_margins() -> None:
    assert estimator().estimate(AccuracyState()) is None
    blind = reference(0)
    assert ExpectedAccuracy.of(replace(blind, scalars={"data.noise": np.ones(512, np.float32)})) is None


def test_margins_that_are_all_alike_are_one_bin() -> None:
    alike = reference(0)
    accuracy = ExpectedAccuracy.of(replace(alike, scalars={"decision.margin": np.ones(512, np.float32)}))
    assert accuracy is not None
    found = accuracy.estimate(accuracy.update(AccuracyState(), [1.0, 0.2]))
    assert found is not None
    assert found.low <= 1 - alike.error_rate <= found.high
