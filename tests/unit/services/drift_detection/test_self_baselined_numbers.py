"""The detectors that hold a stream against its own past, against River's and SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from medloop_services.drift_detection.detectors.detector import Channels, Images
from medloop_services.drift_detection.detectors.kswin import Kswin
from medloop_services.drift_detection.detectors.page_hinkley import PageHinkley
from medloop_services.drift_detection.settings import DriftDetectionSettings
from numpy.typing import NDArray
from river import drift
from scipy.stats import ks_2samp

NAMES = ("data.noise", "data.intensity")


def scored(values: NDArray[np.float64]) -> Images:
    """One stream of images with scalars (b, k), and no embedding."""
    answers = np.full((1, len(values), 2), 0.5)
    return Images(values[np.newaxis], np.zeros((1, len(values), 0)), answers)


def page_hinkley(threshold: float = np.inf) -> PageHinkley:
    channels = Channels.named(NAMES)
    return PageHinkley("page-hinkley", channels, np.full(2, threshold), (0, 1), slack=0.25)


def changing(seed: int, shift: float) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    values = generator.normal([0, 5], 1, (300, 2))
    values[150:] += [shift, -shift]
    return values


@pytest.mark.parametrize("shift", [0.0, 1.0, -1.0])
def test_page_hinkley_is_rivers_sample_by_sample(shift: float) -> None:
    detector, memory = page_hinkley(), page_hinkley().start(1)
    rivers = [drift.PageHinkley(delta=0.25, alpha=1.0, threshold=np.inf) for _ in NAMES]
    for number, row in enumerate(changing(0, shift), 1):
        memory = detector.advance(memory, scored(row[np.newaxis]))
        for one, value in zip(rivers, row, strict=True):
            one.update(value)
        rises = [one._sum_increase - one._min_increase for one in rivers]
        falls = [one._max_decrease - one._sum_decrease for one in rivers]
        np.testing.assert_allclose(memory["heights"][0], [rises, falls], atol=1e-9)
        expected = np.maximum(rises, falls) if number >= 30 else [0, 0]
        np.testing.assert_allclose(
            detector.statistics(memory, scored(row[np.newaxis]))[0], expected, atol=1e-9
        )


@pytest.mark.parametrize("seed", range(5))
def test_page_hinkley_crosses_a_threshold_with_the_image_that_rivers_does(seed: int) -> None:
    detector, memory = page_hinkley(), page_hinkley().start(1)
    found: list[int | None] = [None, None]
    rivers: list[int | None] = [None, None]
    peers = [drift.PageHinkley(delta=0.25, alpha=1.0, threshold=8.0) for _ in NAMES]
    for number, row in enumerate(changing(seed, 1.5)):
        memory = detector.advance(memory, scored(row[np.newaxis]))
        crossed = detector.statistics(memory, scored(row[np.newaxis]))[0] > 8.0
        for place, peer in enumerate(peers):
            peer.update(row[place])
            if peer.drift_detected and rivers[place] is None:
                rivers[place] = number
            if crossed[place] and found[place] is None:
                found[place] = number
    assert found == rivers
    assert None not in found


@pytest.mark.parametrize("size", [7, 16, 100])
def test_page_hinkley_of_batches_is_that_of_single_images(size: int) -> None:
    values = changing(6, 1.0)
    detector = page_hinkley()
    batched, singly = detector.start(1), detector.start(1)
    for start in range(0, len(values), size):
        batched = detector.advance(batched, scored(values[start : start + size]))
    for row in values:
        singly = detector.advance(singly, scored(row[np.newaxis]))
    for name, array in singly.items():
        np.testing.assert_allclose(batched[name], array, atol=1e-9)


def test_page_hinkley_counts_the_images_since_its_extremum() -> None:
    values = changing(7, 2.0)
    detector, memory = page_hinkley(), page_hinkley().start(1)
    memory = detector.advance(memory, scored(values[:200]))
    for channel in (0, 1):
        assert abs(detector.images_since(memory, scored(values[:200]), channel) - 50) <= 5


def test_page_hinkley_heights_stop_at_four_thresholds_so_that_a_rise_can_end() -> None:
    detector = page_hinkley(threshold=8.0)
    values = np.concatenate([np.zeros((200, 2)), np.full((100, 2), 3.0), np.zeros((20, 2))])
    memory = detector.advance(detector.start(1), scored(values[:300]))
    assert (memory["heights"][0, 0] == 32.0).all()
    memory = detector.advance(memory, scored(values[300:]))
    assert (memory["heights"][0, 0] < 8.0).all()


def kswin(window: int = 60, newest: int = 20, seed: int = 0) -> Kswin:
    return Kswin.fitted(Channels.named(NAMES), NAMES, window, newest, seed)


@pytest.mark.parametrize("digits", [8, 0])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_kswin_is_the_largest_of_scipys_distances(size: int, digits: int) -> None:
    """Rounded to whole numbers most values are equal to others."""
    detector, values = kswin(), changing(8, 1.0).round(digits)
    memory = detector.start(1)
    distances: list[list[float]] = []
    for start in range(0, 300, size):
        memory = detector.advance(memory, scored(values[start : start + size]))
        for end in range(max(start + 1, 60), min(start + size, 300) + 1):
            if end % 4 == 0:
                rows = values[end - 60 : end]
                pairs = [(rows[40:, place], rows[detector.sampled, place]) for place in (0, 1)]
                distances.append([ks_2samp(newest, older).statistic for newest, older in pairs])
        expected = 20 * np.max(distances[-15:], axis=0) ** 2 if distances else [0, 0]
        np.testing.assert_allclose(detector.statistics(memory, scored(values))[0], expected)


def test_kswin_samples_older_images_without_repeating_one() -> None:
    samples = [kswin(seed=seed).sampled for seed in range(50)]
    assert all(len(set(places.tolist())) == 20 for places in samples)
    assert set(np.concatenate(samples).tolist()) == set(range(40))
    np.testing.assert_array_equal(samples[3], kswin(seed=3).sampled)


def test_kswin_says_nothing_before_its_window_is_full() -> None:
    values = np.concatenate([np.zeros((30, 2)), np.ones((30, 2))])
    before = kswin().advance(kswin().start(1), scored(values[:59]))
    assert (kswin().statistics(before, scored(values)) == 0).all()
    full = kswin().advance(before, scored(values[59:]))
    assert (kswin().statistics(full, scored(values)) > 0).all()


@pytest.mark.parametrize("later", [20, 50, 51])
def test_kswin_dates_a_change_by_its_farthest_images(later: int) -> None:
    values = np.zeros((160, 2))
    values[100:] = 1
    detector = kswin()
    memory = detector.advance(detector.start(1), scored(values[: 100 + later]))
    assert detector.statistics(memory, scored(values)).tolist() == [[20, 20]]
    assert detector.images_since(memory, scored(values), 0) == later


def test_kswin_cannot_sample_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="more than half of kswin_window"):
        DriftDetectionSettings(kswin_window=40, kswin_newest=32)
