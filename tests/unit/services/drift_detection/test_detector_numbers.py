"""Each detector's statistic against its definition, computed otherwise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from medloop_services.drift_detection.detectors.adwin import Adwin
from medloop_services.drift_detection.detectors.change_point import change_point
from medloop_services.drift_detection.detectors.class_mix import STAYS, ClassMix
from medloop_services.drift_detection.detectors.cusum import Cusum
from medloop_services.drift_detection.detectors.detector import Channels, Images, Memory
from medloop_services.drift_detection.detectors.kolmogorov_smirnov import KolmogorovSmirnov
from medloop_services.drift_detection.detectors.label_error import LabelError, LabelErrorState
from medloop_services.drift_detection.detectors.mewma import Mewma
from medloop_services.drift_detection.detectors.online_discrepancy import OnlineDiscrepancy
from numpy.typing import NDArray
from river import drift
from scipy.stats import ks_2samp

ONE = Channels.named(("data.noise",))
NO_FEATURES = np.zeros((1, 0))


def scored(values: NDArray[np.float64] | list[float]) -> Images:
    """One stream of images with one scalar, and no embedding."""
    scores = np.array(values, np.float64).reshape(1, -1, 1)
    answers = np.full((1, scores.shape[1], 2), 0.5)
    return Images(scores, np.zeros((1, scores.shape[1], 0)), answers)


def featured(features: NDArray[np.float64]) -> Images:
    """One stream of images with features (b, p), and no scalars."""
    return Images(np.zeros((1, len(features), 0)), features[np.newaxis], np.full((1, len(features), 2), 0.5))


def answered(share: NDArray[np.float64]) -> Images:
    """One stream of images of which the model gives (b,) shares to the second class."""
    nothing = np.zeros((1, len(share), 0))
    return Images(nothing, nothing, np.stack([1 - share, share], 1)[np.newaxis])


def cusum(names: tuple[str, ...] = ("data.noise",), slack: float = 0.5) -> Cusum:
    return Cusum("cusum", Channels.named(names), np.full(len(names), 3.0), np.full((2, len(names)), slack))


def test_cusum_is_pages_recursion_and_counts_images_since_zero() -> None:
    memory = cusum().advance(cusum().start(1), scored([1.0, -2.0, 1.5, 1.5, 2.0]))
    assert memory["sums"][0, :, 0] == pytest.approx([3.5, 0.0])
    assert cusum().images_since(memory, scored([]), 0) == 3


@pytest.mark.parametrize("seed", range(5))
def test_cusum_of_batches_is_pages_recursion_image_by_image(seed: int) -> None:
    generator = np.random.default_rng(seed)
    detector, memory = cusum(slack=0.25), cusum(slack=0.25).start(1)
    upper = lower = 0.0
    since = {"upper": 0, "lower": 0}
    for size in generator.integers(1, 20, 12):
        values = generator.normal(0.1, 1, size)
        for value in values:
            upper, lower = max(0.0, upper + value - 0.25), max(0.0, lower - value - 0.25)
            since = {
                "upper": since["upper"] + 1 if upper else 0,
                "lower": since["lower"] + 1 if lower else 0,
            }
        upper, lower = min(upper, 12.0), min(lower, 12.0)
        memory = detector.advance(memory, scored(values))
        assert memory["sums"][0, :, 0] == pytest.approx([upper, lower])
        assert memory["images"][0, :, 0].tolist() == list(since.values())


def test_cusum_sums_are_capped_so_that_an_alarm_can_end() -> None:
    memory = cusum().advance(cusum().start(1), scored([3.0] * 100))
    assert memory["sums"][0, 0, 0] == 12.0
    assert cusum().statistics(cusum().advance(memory, scored([0.0] * 20)), scored([]))[0, 0] < 3.0


def test_cusum_of_the_decision_layer_lets_every_mix_of_classes_pass() -> None:
    labels = np.repeat([0, 1], 50)
    scores = np.where(labels == 1, 0.8, -0.4).reshape(1, -1, 1)
    images = Images(scores, np.zeros((1, 100, 0)), np.full((1, 100, 2), 0.5))
    entropy = Cusum.fitted(Channels.named(("decision.entropy",)), images, labels, 0.25)
    assert entropy.slack[:, 0] == pytest.approx([0.25 + 0.8, 0.25 + 0.4])
    noise = Cusum.fitted(Channels.named(("data.noise",)), images, labels, 0.25)
    assert noise.slack[:, 0] == pytest.approx([0.25, 0.25])
    for label in (0, 1):
        alike = Images(scores[:, labels == label], images.features[:, :50], images.probabilities[:, :50])
        assert entropy.advance(entropy.start(1), alike)["sums"].max() == 0


def test_mewma_is_the_recursion_of_whitened_scores() -> None:
    generator = np.random.default_rng(1)
    mixed = generator.normal(size=(400, 3)) @ np.array([[1, 0.8, 0], [0, 1, 0.5], [0, 0, 1]])
    detector = Mewma.fitted(ONE, _with_scalar(mixed), weight=0.1)
    stream = _with_scalar(generator.normal(0.3, 1, (48, 3)))
    values = np.column_stack([stream.scores[0], stream.features[0]])
    average = np.zeros(3)
    for value in values:
        average = 0.9 * average + 0.1 * np.clip((value - detector.centre) @ detector.whitening, -4, 4)
    memory = detector.start(1)
    for part in np.split(np.arange(48), 3):
        memory = detector.advance(memory, _rows(stream, part))
    expected = (average**2).sum() / (0.1 / 1.9 * (1 - 0.9**96))
    assert detector.statistics(memory, stream)[0, 0] == pytest.approx(expected)


def test_mewma_whitens_with_the_references_covariance() -> None:
    generator = np.random.default_rng(2)
    mixed = generator.normal(size=(4_000, 3)) @ np.array([[1, 0.8, 0], [0, 1, 0.5], [0, 0, 1]])
    detector = Mewma.fitted(ONE, _with_scalar(mixed), weight=0.1)
    whitened = (mixed - detector.centre) @ detector.whitening
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=0.06)


def test_online_mmd_is_the_distance_of_weighted_mean_random_features() -> None:
    generator = np.random.default_rng(3)
    reference, stream = generator.normal(size=(200, 4)), generator.normal(0.5, 1, (60, 4))
    detector = OnlineDiscrepancy.fitted(featured(reference), weight=0.05, seed=0)

    def mapped(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sqrt(2 / 64) * np.cos(x @ detector.frequencies + detector.phases)

    mean = mapped(reference).mean(0)
    for row in stream:
        mean = 0.95 * mean + 0.05 * mapped(row)
    memory = detector.advance(detector.advance(detector.start(1), featured(stream[:7])), featured(stream[7:]))
    expected = ((mean - mapped(reference).mean(0)) ** 2).sum()
    assert detector.statistics(memory, featured(stream))[0, 0] == pytest.approx(expected)


def test_random_features_approximate_the_kernels_mmd() -> None:
    generator = np.random.default_rng(4)
    reference, shifted = generator.normal(size=(400, 4)), generator.normal(1.0, 1, (400, 4))
    detectors = [OnlineDiscrepancy.fitted(featured(reference), 0.05, seed) for seed in range(20)]
    width = 1 / detectors[0].frequencies.std() ** 2

    def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        distances = ((x[:, None] - y) ** 2).sum(2)
        return float(np.exp(-distances / (2 * width)).mean())

    exact = kernel(reference, reference) + kernel(shifted, shifted) - 2 * kernel(reference, shifted)
    approximate = []
    for detector in detectors:
        memory: Memory = {"mean": _mapped(detector, shifted).mean(0, keepdims=True)}
        approximate.append(detector.statistics(memory, featured(shifted))[0, 0])
    assert np.mean(approximate) == pytest.approx(exact, rel=0.15)


def test_ks_is_scipys_distance_as_far_as_its_levels_show_it() -> None:
    generator = np.random.default_rng(5)
    reference, window = generator.normal(size=500), generator.normal(0.6, 1, 64)
    detector = KolmogorovSmirnov.fitted(ONE, scored(reference), images=64)
    (found,) = detector.statistics({}, scored(window))[0]
    exact = ks_2samp(window, reference).statistic
    assert exact - 1 / 16 - 1 / 64 <= found <= exact + 1e-12


def test_ks_distance_is_at_most_the_share_of_changed_images() -> None:
    generator = np.random.default_rng(6)
    detector = KolmogorovSmirnov.fitted(ONE, scored(generator.normal(size=2_000)), images=2_000)
    mixed = np.where(generator.random(2_000) < 0.3, 50.0, generator.normal(size=2_000))
    statistics = detector.statistics({}, scored(mixed))[0]
    assert detector.shifted_share(statistics) == pytest.approx(0.3, abs=0.05)


def test_ks_says_nothing_before_its_window_is_full() -> None:
    detector = KolmogorovSmirnov.fitted(ONE, scored(np.arange(100.0)), images=64)
    assert detector.statistics({}, scored(np.full(63, 1e6)))[0, 0] == 0


def test_adwin_cuts_off_what_was_before_the_change() -> None:
    adwin = Adwin.fitted(ONE, ("data.noise",), delta=0.002)
    generator = np.random.default_rng(7)
    recent = scored(np.concatenate([generator.normal(0, 1, 192), generator.normal(1.5, 1, 192)]))
    assert adwin.statistics({}, recent)[0, 0] > 0
    assert abs(adwin.images_since({}, recent, 0) - 192) <= 32


def test_adwin_keeps_what_rivers_own_keeps() -> None:
    adwin = Adwin.fitted(ONE, ("data.noise",), delta=0.002)
    generator = np.random.default_rng(7)
    scores = [*generator.normal(0, 1, 192), *generator.normal(1, 1, 192)]
    rivers = drift.ADWIN(delta=0.002, clock=16)
    for score in scores:
        rivers.update(score)
    assert adwin.statistics({}, scored(scores))[0, 0] == pytest.approx(1 - rivers.width / len(scores))
    assert rivers.width < len(scores)


def class_mix() -> ClassMix:
    generator = np.random.default_rng(8)
    labels = np.repeat([0, 1], 250)
    share = np.where(labels == 1, generator.beta(8, 2, 500), generator.beta(2, 8, 500))
    return ClassMix.fitted(answered(share), labels)


def answers_of(labels: NDArray[np.int64], generator: np.random.Generator) -> Images:
    size = len(labels)
    return answered(np.where(labels == 1, generator.beta(8, 2, size), generator.beta(2, 8, size)))


def sticky(share: float, stays: float, images: int, generator: np.random.Generator) -> NDArray[np.int64]:
    fresh = (generator.random(images) < share).astype(np.int64)
    renewed = generator.random(images) >= stays
    renewed[0] = True
    return fresh[np.maximum.accumulate(np.where(renewed, np.arange(images), 0))]


def test_the_forward_algorithm_weighs_every_path_of_classes() -> None:
    detector, share = class_mix(), np.array([0.9, 0.8, 0.3, 0.95])
    memory = detector.start(1)
    likelihood = detector.confusion[:, (share > 0.5).astype(int)].T
    mixes, mix = [], np.array([0.5, 0.5])
    for images, row in enumerate(likelihood, 1):
        mixes.append(mix)
        mix = mix + (mix * row / (mix * row).sum() - mix) / (8 + images)
    memory = detector.advance(memory, answered(share))
    for place, stays in enumerate(STAYS):
        # Every path of hidden classes; before the first image both are as likely.
        total = 0.0
        for path in itertools.product((0, 1), repeat=5):
            chance = 0.5
            for image, (before, now) in enumerate(itertools.pairwise(path)):
                chance *= (stays * (before == now) + (1 - stays) * mixes[image][now]) * likelihood[image, now]
            total += chance
        forgotten = _forgotten(detector, share, place)
        assert np.exp(forgotten) == pytest.approx(total)
    assert memory["mix"][0] == pytest.approx(mix)


@pytest.mark.parametrize(("stays", "low", "high"), [(0.0, 1.0, 1.6), (0.9, 8, 40), (0.95, 15, 80)])
def test_dependence_is_estimated_from_the_answers(stays: float, low: float, high: float) -> None:
    generator = np.random.default_rng(9)
    detector = class_mix()
    estimates = []
    for _ in range(5):
        labels = sticky(0.4, stays, 1_500, generator)
        memory = detector.advance(detector.start(1), answers_of(labels, generator))
        estimates.append(float(detector.dependence(memory)[0]))
    # (1 + ρ) / (1 − ρ) is 1, 19 and 39.
    assert low <= np.median(estimates) <= high


def test_the_statistic_is_the_largest_standardised_difference_of_means() -> None:
    generator = np.random.default_rng(10)
    detector = class_mix()
    images = answers_of(sticky(0.3, 0.0, 320, generator), generator)
    memory = detector.start(1)
    for start in range(0, 320, 16):
        part = slice(start, start + 16)
        memory = detector.advance(memory, answered(images.probabilities[0, part, 1]))
    share, dependence = images.probabilities[0, :, 1], float(detector.dependence(memory)[0])
    mix = memory["mix"][0]
    means, variances = detector.means[:, 1], detector.variances[:, 1]
    variance = mix @ variances + dependence * (mix @ means**2 - (mix @ means) ** 2)
    best = 0.0
    for split in range(16, 320, 16):
        if split >= 48 * dependence and 320 - split >= 8 * dependence:
            error = np.sqrt(variance * (1 / split + 1 / (320 - split)))
            best = max(best, abs(share[split:].mean() - share[:split].mean()) / error)
    assert detector.statistics(memory, images)[0, 0] == pytest.approx(best)


def test_another_mix_is_noticed_and_dated() -> None:
    generator = np.random.default_rng(11)
    detector, memory = class_mix(), class_mix().start(1)
    labels = np.concatenate([sticky(0.15, 0.0, 320, generator), sticky(0.6, 0.0, 160, generator)])
    images = answers_of(labels, generator)
    for start in range(0, 480, 16):
        memory = detector.advance(memory, answered(images.probabilities[0, start : start + 16, 1]))
    assert detector.statistics(memory, images)[0, 0] > 5
    assert abs(detector.images_since(memory, images, 0) - 160) <= 32


def test_a_ward_with_another_mix_than_the_references_is_no_change() -> None:
    generator = np.random.default_rng(12)
    detector, memory = class_mix(), class_mix().start(1)
    images = answers_of(sticky(0.05, 0.0, 640, generator), generator)
    for start in range(0, 640, 16):
        memory = detector.advance(memory, answered(images.probabilities[0, start : start + 16, 1]))
        assert detector.statistics(memory, images)[0, 0] < 4.5


def test_the_change_point_is_where_the_likelihood_says() -> None:
    scores = np.concatenate([np.zeros(40), np.full(24, 2.0)])
    assert change_point(scores) == 40
    assert change_point(-scores) == 40
    assert change_point(np.array([5.0])) == 0


@pytest.fixture
def label_error() -> LabelError:
    generator = np.random.default_rng(7)
    return LabelError.calibrated(
        wrong=generator.random(500) < 0.1,
        predicted=generator.integers(0, 2, 500),
        classes=2,
        rise=0.2,
        window=64,
        labels_per_alarm=5_000,
        seed=0,
    )


def labelled(detector: LabelError, errors: list[bool]) -> LabelErrorState:
    state = LabelErrorState()
    for sequence, is_error in enumerate(errors):
        state = detector.update(state, 0, int(is_error), "class", sequence)
    return state


def test_label_errors_at_the_reference_rate_do_not_alarm(label_error: LabelError) -> None:
    for seed in range(5):
        errors = (np.random.default_rng(seed).random(300) < 0.1).tolist()
        assert not label_error.readings(labelled(label_error, errors))[0].alarmed


def test_label_errors_at_a_raised_rate_alarm_and_say_since_when(label_error: LabelError) -> None:
    generator = np.random.default_rng(8)
    errors = (generator.random(200) < 0.1).tolist() + (generator.random(100) < 0.35).tolist()
    reading = label_error.readings(labelled(label_error, errors))[0]
    assert reading.alarmed
    assert reading.since_sequence is not None
    assert abs(reading.since_sequence - 200) < 40


def test_the_error_sum_is_the_log_likelihood_ratio(label_error: LabelError) -> None:
    expected, raised = label_error.expected[0], label_error.raised[0]
    error, correct = np.log(raised / expected), np.log((1 - raised) / (1 - expected))
    assert labelled(label_error, [True]).sum == pytest.approx(error)
    assert labelled(label_error, [True, False]).sum == pytest.approx(max(0, error + correct))
    assert labelled(label_error, [False, False]).sum == 0


def test_a_class_the_model_lacks_is_counted_apart(label_error: LabelError) -> None:
    state = LabelErrorState()
    for sequence in range(5):
        state = label_error.update(state, 0, 2, "nodule", 10 + sequence)
    evidence = label_error.evidence(state)
    assert (evidence.unknown, evidence.errors, evidence.unknown_classes) == (5, 0, {2: "nodule"})
    assert evidence.latest_sequence == 14
    error, unknown = label_error.readings(state)
    assert not error.alarmed
    assert (unknown.alarmed, unknown.since_sequence) == (True, 10)


def _with_scalar(values: NDArray[np.float64]) -> Images:
    """One stream of images of which the first column is a scalar and the others are components."""
    answers = np.full((1, len(values), 2), 0.5)
    return Images(values[np.newaxis, :, :1], values[np.newaxis, :, 1:], answers)


def _rows(images: Images, rows: NDArray[np.int64]) -> Images:
    return Images(images.scores[:, rows], images.features[:, rows], images.probabilities[:, rows])


def _mapped(detector: OnlineDiscrepancy, features: NDArray[np.float64]) -> NDArray[np.float64]:
    mapped: NDArray[np.float64] = np.sqrt(2 / 64) * np.cos(features @ detector.frequencies + detector.phases)
    return mapped


def _forgotten(detector: ClassMix, share: NDArray[np.float64], place: int) -> float:
    """Return the log-likelihood of the images under one ρ, with its forgetting undone."""
    memory, total, before = detector.start(1), 0.0, 0.0
    for value in share:
        memory = detector.advance(memory, answered(np.array([value])))
        evidence = float(memory["evidence"][0, place])
        total += evidence - 0.998 * before
        before = evidence
    return total
