from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from medloop_model.statistics import Reference, measure_reference
from medloop_model.statistics.reference import REFERENCE_IMAGES
from numpy.typing import NDArray


@dataclass
class Output:
    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    blocks: NDArray[np.float32]


class BrightnessEngine:
    """Calls an image of more than middle grey bright."""

    classes = ("dark", "bright")

    def __call__(self, images: NDArray[np.uint8], /) -> Output:
        brightness = images.reshape(len(images), -1).mean(1).astype(np.float32) / 255 - 0.5
        logits = np.stack([-brightness, brightness], axis=1)
        return Output(logits, np.repeat(logits, 3, axis=1), np.zeros((len(images), 2, 4), np.float32))


def images_and_labels(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    generator = np.random.default_rng(5)
    level = generator.integers(20, 230, count)
    images = np.clip(level[:, None, None] + generator.integers(-9, 9, (count, 10, 10)), 0, 255).astype(
        np.uint8
    )
    return images, (images.reshape(count, -1).mean(1) > 127.5).astype(np.int64)


def test_the_reference_holds_a_bounded_sample_of_all_layers() -> None:
    images, labels = images_and_labels(700)
    reference = measure_reference(BrightnessEngine(), images, labels)
    assert reference.matrix().shape == (REFERENCE_IMAGES, len(reference.names))
    assert reference.embedding.shape == (REFERENCE_IMAGES, 6)
    assert {name.split(".")[0] for name in reference.names} == {"data", "decision", "activation"}
    np.testing.assert_allclose(reference.probabilities.sum(1), 1, rtol=1e-6)
    assert reference.error_rate == 0


def test_error_rate_counts_wrong_answers_and_classes_the_model_lacks() -> None:
    images, labels = images_and_labels(100)
    labels[:10] = 1 - labels[:10]
    labels[10:15] = 7
    assert measure_reference(BrightnessEngine(), images, labels).error_rate == pytest.approx(0.15)


def test_the_same_seed_draws_the_same_images_and_another_seed_others() -> None:
    images, labels = images_and_labels(600)
    first, again, other = (measure_reference(BrightnessEngine(), images, labels, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.matrix(), again.matrix())
    assert not np.array_equal(first.matrix(), other.matrix())


def test_tensors_bring_the_reference_back() -> None:
    images, labels = images_and_labels(80)
    reference = measure_reference(BrightnessEngine(), images, labels)
    restored = Reference.from_tensors(reference.to_tensors())
    assert restored.names == reference.names
    np.testing.assert_array_equal(restored.matrix(), reference.matrix())
    np.testing.assert_array_equal(restored.wrong, reference.wrong)
    np.testing.assert_array_equal(restored.predicted, reference.predicted)


def test_an_incomplete_reference_is_refused_and_says_what_is_missing() -> None:
    images, labels = images_and_labels(20)
    tensors = measure_reference(BrightnessEngine(), images, labels).to_tensors()
    del tensors["embedding"]
    with pytest.raises(ValueError, match="embedding"):
        Reference.from_tensors(tensors)
    with pytest.raises(ValueError, match="measure_reference"):
        Reference.from_tensors({})


def test_images_without_labels_are_refused() -> None:
    images, labels = images_and_labels(4)
    with pytest.raises(ValueError, match="4 images, 3 labels"):
        measure_reference(BrightnessEngine(), images, labels[:3])


def test_images_of_one_study_keep_its_number() -> None:
    images, labels = images_and_labels(60)
    reference = measure_reference(BrightnessEngine(), images, labels, studies=np.arange(60) // 3)
    assert np.bincount(reference.studies).tolist() == [3] * 20


def test_selected_rows_are_those_images() -> None:
    images, labels = images_and_labels(30)
    reference = measure_reference(BrightnessEngine(), images, labels)
    twice = reference.select(np.array([4, 4, 2]))
    np.testing.assert_array_equal(twice.matrix(), reference.matrix()[[4, 4, 2]])
    np.testing.assert_array_equal(twice.labels, reference.labels[[4, 4, 2]])
