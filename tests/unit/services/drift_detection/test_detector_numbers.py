"""Each detector's statistic against its definition, computed otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from medloop_schemas import Layer
from medloop_services.drift_detection.detectors.adwin import Adwin
from medloop_services.drift_detection.detectors.change_point import change_point
from medloop_services.drift_detection.detectors.cusum import Cusum
from medloop_services.drift_detection.detectors.detector import Batch, Scalars
from medloop_services.drift_detection.detectors.kolmogorov_smirnov import KolmogorovSmirnov, distance
from medloop_services.drift_detection.detectors.label_error import LabelError, LabelErrorState
from medloop_services.drift_detection.detectors.maximum_mean_discrepancy import MaximumMeanDiscrepancy
from river import drift
from scipy.stats import ks_2samp

ONE = Scalars(("data.noise",), (Layer.DATA,))


def batch(values: list[float], first: int = 0) -> Batch:
    scores = np.array(values)[:, None]
    return Batch(tuple(range(first, first + len(values))), scores, scores)


def test_cusum_is_pages_recursion_and_remembers_where_it_left_zero() -> None:
    cusum = Cusum(ONE, slack=0.5, thresholds=np.array([3.0]))
    state = cusum.update(cusum.initial(), batch([1.0, -2.0, 1.5, 1.5, 2.0]))
    assert state.upper[0] == pytest.approx(3.5)
    assert state.lower == (0.0,)
    (reading,) = cusum.readings(state)
    assert reading.alarmed
    assert reading.value == pytest.approx(3.5)
    assert reading.since_sequence == 2


def test_cusum_sums_are_capped_so_that_an_alarm_can_end() -> None:
    cusum = Cusum(ONE, slack=0.5, thresholds=np.array([3.0]))
    state = cusum.update(cusum.initial(), batch([3.0] * 100))
    assert state.upper == (12.0,)
    assert not any(reading.alarmed for reading in cusum.readings(cusum.update(state, batch([0.0] * 20))))


def test_cusum_calibration_holds_the_false_alarm_rate_on_fresh_streams() -> None:
    generator = np.random.default_rng(0)
    scalars = Scalars(tuple(f"data.s{n}" for n in range(6)), (Layer.DATA,) * 6)
    cusum = Cusum.calibrated(scalars, generator.normal(size=(512, 6)), 0.25, images_per_alarm=5_000, seed=0)
    sums, alarmed = np.zeros((2, 400, 6)), np.zeros(400, np.bool_)
    for _ in range(500):
        scores = generator.normal(size=(400, 6))
        sums = np.maximum(sums + np.stack([scores, -scores]) - 0.25, 0)
        alarmed |= (sums.max(0) > cusum.thresholds).any(1)
    expected = 1 - np.exp(-500 / 5_000)
    assert alarmed.mean() < 1.5 * expected


def test_ks_distance_agrees_with_scipy_with_and_without_ties() -> None:
    generator = np.random.default_rng(1)
    for decimals in (6, 1, 0):
        left = np.sort(generator.normal(0.4, 1, 64).round(decimals))
        right = np.sort(generator.normal(size=500).round(decimals))
        assert distance(left, right) == pytest.approx(ks_2samp(left, right).statistic, abs=1e-12)


def test_ks_distance_is_at_most_the_share_of_changed_images() -> None:
    generator = np.random.default_rng(2)
    reference = np.sort(generator.normal(size=2_000))
    mixed = np.where(generator.random(2_000) < 0.3, 50.0, generator.normal(size=2_000))
    assert distance(np.sort(mixed), reference) == pytest.approx(0.3, abs=0.05)


def test_ks_threshold_keeps_its_probability_on_fresh_windows() -> None:
    generator = np.random.default_rng(3)
    reference = generator.normal(size=(512, 1))
    test = KolmogorovSmirnov(ONE, reference, images=64, false_alarm=0.05)
    ascending = np.sort(reference[:, 0])
    alarmed = [distance(np.sort(generator.normal(size=64)), ascending) > test.threshold for _ in range(1_000)]
    assert 0.005 < np.mean(alarmed) < 0.08


def test_mmd_agrees_with_its_definition_pair_by_pair() -> None:
    generator = np.random.default_rng(4)
    reference, rows = generator.normal(size=(40, 3)), generator.normal(0.5, 1, (20, 3))
    test = MaximumMeanDiscrepancy.calibrated(reference, images=20, false_alarm=0.01, seed=0)
    state = test.update(test.initial(), Batch(tuple(range(20)), rows, rows))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.exp(-test.inverse_width * ((x - y) ** 2).sum()))

    within = np.mean([kernel(rows[i], rows[j]) for i in range(20) for j in range(20) if i != j])
    between = np.mean([kernel(x, y) for x in rows for y in reference])
    of_reference = np.mean(
        [kernel(reference[i], reference[j]) for i in range(40) for j in range(40) if i != j]
    )
    assert state.value == pytest.approx(within + of_reference - 2 * between)


def test_mmd_threshold_keeps_its_probability_on_fresh_windows() -> None:
    generator = np.random.default_rng(5)
    test = MaximumMeanDiscrepancy.calibrated(generator.normal(size=(256, 4)), 64, false_alarm=0.02, seed=0)
    alarmed = []
    for _ in range(300):
        rows = generator.normal(size=(64, 4))
        (reading,) = test.readings(test.update(test.initial(), Batch(tuple(range(64)), rows, rows)))
        alarmed.append(reading.alarmed)
    assert np.mean(alarmed) < 0.06


def test_adwin_cuts_off_what_was_before_the_change() -> None:
    adwin = Adwin.watching(ONE.names, ONE, delta=0.002, images=512)
    state = adwin.initial()
    generator = np.random.default_rng(6)
    for number in range(24):
        values = generator.normal(1.5 if number >= 12 else 0.0, 1, 16).tolist()
        state = adwin.update(state, batch(values, first=16 * number))
    (reading,) = adwin.readings(state)
    assert reading.alarmed
    assert reading.since_sequence is not None
    assert abs(reading.since_sequence - 16 * 12) <= 32


def test_adwin_keeps_what_rivers_own_keeps() -> None:
    adwin = Adwin.watching(ONE.names, ONE, delta=0.002, images=512)
    generator = np.random.default_rng(7)
    scores = [*generator.normal(0, 1, 192), *generator.normal(1, 1, 192)]
    rivers = drift.ADWIN(delta=0.002, clock=16)
    for score in scores:
        rivers.update(score)
    state = adwin.update(adwin.initial(), batch(scores))
    assert state.kept == (int(rivers.width),)
    assert rivers.width < len(scores)


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
