from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from medloop_services.federating.hospitals import FEWEST_IMAGES, Hospital, draw_hospitals, pooled
from medloop_services.replay.dataset import Dataset, draw_dataset
from medloop_services.replay.errors import DatasetError


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return draw_dataset()


def drawn(
    dataset: Dataset, concentration: float = 0.3, count: int = 4, seed: int = 0
) -> tuple[Hospital, ...]:
    return draw_hospitals(dataset, count, concentration, images=60, severity=3, seed=seed)


def spread(hospitals: tuple[Hospital, ...]) -> float:
    """How unlike the hospitals' mixes are."""
    return float(np.stack([hospital.mix for hospital in hospitals]).std(axis=0).mean())


def test_every_image_is_at_one_hospital_and_none_was_trained_on(dataset: Dataset) -> None:
    hospitals = drawn(dataset)
    studies = [str(study) for hospital in hospitals for study in hospital.training.studies]
    assert len(studies) == len(set(studies)) == 240
    assert set(studies) <= set(map(str, dataset.divide().pool.studies))
    assert min(len(hospital.training) for hospital in hospitals) >= FEWEST_IMAGES
    for hospital in hospitals:
        counts = np.bincount(hospital.training.labels, minlength=len(dataset.class_names))
        np.testing.assert_allclose(hospital.mix, counts / len(hospital.training))


def test_a_small_concentration_makes_patients_unlike(dataset: Dataset) -> None:
    unlike = np.mean([spread(drawn(dataset, 0.3, seed=seed)) for seed in range(5)])
    alike = np.mean([spread(drawn(dataset, 1000.0, seed=seed)) for seed in range(5)])
    assert alike < 0.05 < unlike


def test_a_seed_draws_the_same_hospitals_again(dataset: Dataset) -> None:
    one, again, other = drawn(dataset), drawn(dataset), drawn(dataset, seed=1)
    for first, second in zip(one, again, strict=True):
        np.testing.assert_array_equal(first.training.images, second.training.images)
        np.testing.assert_array_equal(first.test.images, second.test.images)
    assert any(len(a.training) != len(b.training) for a, b in zip(one, other, strict=True))


def test_all_are_tested_on_everybodys_images_as_their_scanner_shows_them(dataset: Dataset) -> None:
    one, other = drawn(dataset)[:2]
    assert one.scanner != other.scanner
    np.testing.assert_array_equal(one.test.labels, dataset.test.labels)
    assert (one.test.images != other.test.images).any()


def test_pooled_they_take_turns(dataset: Dataset) -> None:
    hospitals = drawn(dataset)
    everything = pooled(hospitals)
    assert len(everything) == sum(len(hospital.training) for hospital in hospitals)
    largest = max(hospitals, key=lambda hospital: len(hospital.training))
    others = np.isin(everything.studies[: len(everything) // 2], largest.training.studies, invert=True)
    assert others.any()


def test_a_class_that_no_test_image_shows_is_told(dataset: Dataset) -> None:
    lacking = replace(dataset, test=dataset.test.select(dataset.test.labels == 1))
    with pytest.raises(DatasetError, match=f"no test image shows {dataset.class_names[0]}"):
        drawn(lacking)


def test_too_few_images_are_told(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="too few for 64 hospitals"):
        draw_hospitals(dataset, 64, 0.3, images=4, severity=3, seed=0)
    with pytest.raises(DatasetError, match="choose fewer sites or a higher --non-iid"):
        draw_hospitals(dataset, 30, 0.05, images=17, severity=3, seed=0)
