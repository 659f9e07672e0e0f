"""The detectors with a Gaussian kernel against sums over its pairs, and their tests under the null."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from medloop_services.drift_detection.detectors.detector import Detector, Images, Memory
from medloop_services.drift_detection.detectors.kernel_cusum import FEWEST_IMAGES, KernelCusum
from medloop_services.drift_detection.detectors.kernel_mean import REFERENCE_IMAGES, KernelMean
from medloop_services.drift_detection.detectors.window_discrepancy import WindowDiscrepancy
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.stats import kstest

Features = NDArray[np.float64]


def featured(features: Features) -> Images:
    """One stream of images with features (b, p), and no scalars."""
    return Images(np.zeros((1, len(features), 0)), features[np.newaxis], np.full((1, len(features), 2), 0.5))


def normal(seed: int, images: int, shift: float = 0.0) -> Features:
    return np.random.default_rng(seed).normal(shift, 1, (images, 3))


def kernel(x: Features, y: Features, width: float) -> float:
    return float(np.exp(-((x - y) ** 2).sum() / (2 * width**2)))


def discrepancy(window: Features, reference: Features, width: float) -> float:
    """MMD² as Gretton et al. 2012 write it, pair by pair."""
    within = [kernel(x, y, width) for x, y in itertools.permutations(window, 2)]
    apart = [kernel(x, y, width) for x, y in itertools.permutations(reference, 2)]
    across = [kernel(x, y, width) for x, y in itertools.product(window, reference)]
    return float(np.mean(within) + np.mean(apart) - 2 * np.mean(across))


def followed(detector: Detector, features: Features, size: int) -> Memory:
    memory = detector.start(1)
    for start in range(0, len(features), size):
        memory = detector.advance(memory, featured(features[start : start + size]))
    return memory


def test_the_kernel_is_as_wide_as_the_median_distance() -> None:
    images = normal(0, 41)
    assert KernelMean.of(images, seed=0).width == pytest.approx(np.median(pdist(images)))


def test_of_a_large_reference_some_images_are_drawn() -> None:
    images = normal(1, 700)
    first, again, other = (KernelMean.of(images, seed) for seed in (0, 0, 1))
    assert len(np.unique(first.images, axis=0)) == REFERENCE_IMAGES
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 16, 50])
def test_windowed_mmd_is_the_sum_over_all_pairs(size: int, shift: float) -> None:
    reference, stream = normal(2, 30), normal(3, 50, shift)
    detector = WindowDiscrepancy.fitted(featured(reference), images=20, seed=0)
    found = detector.statistics(followed(detector, stream, size), featured(stream))[0, 0]
    assert found == pytest.approx(discrepancy(stream[-20:], reference, float(np.median(pdist(reference)))))


def test_windowed_mmd_is_zero_on_average_without_a_change() -> None:
    """A biased estimate would be 1/20 of 1 − E k ≈ 0.35 above it."""
    found = []
    for seed in range(200):
        detector = WindowDiscrepancy.fitted(featured(normal(2 * seed, 100)), images=20, seed=0)
        stream = normal(2 * seed + 1, 20)
        found.append(float(detector.statistics(followed(detector, stream, 20), featured(stream))[0, 0]))
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(200)
    assert 4 * np.std(found) / np.sqrt(200) < 0.35 / 20


def test_windowed_mmd_says_nothing_before_its_window_is_full() -> None:
    detector = WindowDiscrepancy.fitted(featured(normal(4, 50)), images=20, seed=0)
    few, enough = normal(5, 19, 9.0), normal(5, 20, 9.0)
    assert detector.statistics(followed(detector, few, 19), featured(few))[0, 0] == 0
    assert detector.statistics(followed(detector, enough, 20), featured(enough))[0, 0] > 0.5


def test_the_witness_function_dates_the_change() -> None:
    stream = np.concatenate([normal(6, 70), normal(7, 30, 2.0)])
    detector = WindowDiscrepancy.fitted(featured(normal(8, 200)), images=40, seed=0)
    memory = followed(detector, stream, 10)
    assert abs(detector.images_since(memory, featured(stream), 0) - 30) <= 3


def test_the_permutation_p_value_is_uniform_without_a_change() -> None:
    values = [
        WindowDiscrepancy.fitted(featured(normal(10 + 2 * seed, 40)), images=16, seed=0).p_value(
            normal(11 + 2 * seed, 16), permutations=99, seed=seed
        )
        for seed in range(300)
    ]
    # It takes the values 1/100, …, 1; half a step earlier it would be uniform on their middles.
    assert kstest(np.array(values) - 0.005, "uniform").pvalue > 0.01
    assert min(values) >= 1 / 100


def test_the_permutation_p_value_of_a_shift_is_the_least_there_can_be() -> None:
    detector = WindowDiscrepancy.fitted(featured(normal(12, 60)), images=16, seed=0)
    assert detector.p_value(normal(13, 16, 1.5), permutations=199, seed=0) == 1 / 200
    assert detector.p_value(normal(13, 16, 0.4), 199, seed=1) == detector.p_value(
        normal(13, 16, 0.4), 199, seed=1
    )


def test_the_permutation_p_value_counts_every_split_of_a_small_sample() -> None:
    """Of 3 and 4 images there are 35 splits: with many permutations p is the share of those as far apart."""
    window, reference = normal(14, 3, 0.7), normal(15, 4)
    pooled = np.concatenate([window, reference])
    width = float(np.median(pdist(pooled)))
    splits = [list(chosen) for chosen in itertools.combinations(range(7), 3)]
    distances = [discrepancy(pooled[rows], np.delete(pooled, rows, 0), width) for rows in splits]
    share = np.mean(np.array(distances) >= distances[0] - 1e-12)
    detector = WindowDiscrepancy.fitted(featured(reference), images=3, seed=0)
    assert detector.p_value(window, permutations=20_000, seed=0) == pytest.approx(share, abs=0.02)
    assert 0.05 < share < 0.95


@pytest.mark.parametrize("size", [1, 16, 40])
def test_kernel_cusum_is_the_largest_standardised_sum_over_the_pairs_of_a_block(size: int) -> None:
    reference, stream = normal(20, 25), normal(21, 40, 0.4)
    detector = KernelCusum.fitted(featured(reference), largest=30, seed=0)
    width = float(np.median(pdist(reference)))
    within = np.mean([kernel(x, y, width) for x, y in itertools.permutations(reference, 2)])

    def centred(x: Features, y: Features, others: Features) -> float:
        to_x = np.mean([kernel(x, z, width) for z in others if z is not x])
        to_y = np.mean([kernel(y, z, width) for z in others if z is not y])
        return kernel(x, y, width) - float(to_x) - float(to_y) + float(within)

    images = list(reference)
    variance = np.mean([centred(x, y, images) ** 2 for x, y in itertools.permutations(images, 2)])
    expected = []
    for block in range(FEWEST_IMAGES, 31):
        pairs = [centred(x, y, images) for x, y in itertools.permutations(stream[-block:], 2)]
        expected.append(sum(pairs) / np.sqrt(2 * block * (block - 1) * variance))
    memory = followed(detector, stream, size)
    np.testing.assert_allclose(detector.block_statistics(memory)[0], expected)
    assert detector.statistics(memory, featured(stream))[0, 0] == pytest.approx(max(expected))
    assert detector.images_since(memory, featured(stream), 0) == FEWEST_IMAGES + int(np.argmax(expected))


def test_every_block_of_kernel_cusum_has_mean_zero_and_variance_one_without_a_change() -> None:
    detector = KernelCusum.fitted(featured(normal(22, 512)), largest=32, seed=0)
    streams = np.random.default_rng(23).normal(0, 1, (1_000, 32, 3))
    images = Images(np.zeros((1_000, 32, 0)), streams, np.full((1_000, 32, 2), 0.5))
    found = detector.block_statistics(detector.advance(detector.start(1_000), images))
    np.testing.assert_allclose(found.mean(0), 0, atol=0.15)
    np.testing.assert_allclose(found.var(0), 1, rtol=0.3)


@pytest.mark.parametrize("later", [15, 60, 100])
def test_kernel_cusum_dates_a_change_by_its_best_block(later: int) -> None:
    stream = np.concatenate([normal(24, 128 - later), normal(25, later, 1.5)])
    detector = KernelCusum.fitted(featured(normal(26, 300)), largest=128, seed=0)
    memory = followed(detector, stream, 16)
    assert abs(detector.images_since(memory, featured(stream), 0) - later) <= 3


def test_kernel_cusum_says_nothing_before_its_smallest_block_is_full() -> None:
    stream = normal(27, FEWEST_IMAGES, 9.0)
    detector = KernelCusum.fitted(featured(normal(28, 50)), largest=32, seed=0)
    assert detector.statistics(followed(detector, stream[:-1], 4), featured(stream[:-1]))[0, 0] == 0
    assert detector.statistics(followed(detector, stream, 4), featured(stream))[0, 0] > 10
