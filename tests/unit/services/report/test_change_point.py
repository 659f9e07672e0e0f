"""The change point: intervals that cover as often as they say, on any series, and nothing of NaN."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medloop_services.report.change_point import change_point, split_posterior

SERIES = arrays(np.float64, st.integers(2, 40), elements=st.floats(-1e6, 1e6))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("shift", [0.7, 1.0, 1.5])
def test_intervals_cover_the_true_change_about_as_often_as_they_say(shift: float, confidence: float) -> None:
    random = np.random.default_rng(0)
    covered = []
    for _ in range(500):
        true = int(random.integers(20, 81))
        series = random.normal(size=100) + shift * (np.arange(100) >= true)
        found = change_point(series, confidence)
        assert found is not None
        covered.append(found.low <= true <= found.high)
    # Below by at most three standard errors of 500 draws; above, as single splits are all or nothing.
    spread = 3 * np.sqrt(confidence * (1 - confidence) / 500)
    assert confidence - spread <= np.mean(covered) <= confidence + spread + 0.1


def test_a_clear_change_is_found_to_the_image() -> None:
    series = np.random.default_rng(1).normal(size=300) + 8 * (np.arange(300) >= 120)
    found = change_point(series)
    assert found is not None
    assert (found.low, found.index, found.high) == (120, 120, 120)
    assert found.after - found.before == pytest.approx(8, abs=0.3)


@pytest.mark.parametrize("level", [0.0, 3.25, -1e9])
def test_a_constant_series_may_have_changed_anywhere(level: float) -> None:
    found = change_point(np.full(50, level))
    assert found is not None
    assert (found.low, found.high) == (1, 49)
    assert found.before == found.after


def test_a_series_of_exactly_two_levels_has_one_change() -> None:
    found = change_point([2.0] * 7 + [5.0] * 4)
    assert found is not None
    assert (found.low, found.index, found.high, found.before, found.after) == (7, 7, 7, 2.0, 5.0)


@pytest.mark.parametrize("series", [[], [1.0]])
def test_fewer_than_two_values_have_no_change(series: list[float]) -> None:
    assert change_point(series) is None


def test_the_new_mean_begins_no_later_than_the_alarm() -> None:
    series = np.r_[np.zeros(30), np.full(10, 1.0), np.full(60, 9.0)]
    found = change_point(series, latest=35)
    assert found is not None
    assert found.high <= 35


@given(SERIES, st.integers(1, 50))
def test_any_series_has_an_ordered_interval_within_itself(series: np.ndarray, latest: int) -> None:
    found = change_point(series, latest=latest)
    assert found is not None
    assert 1 <= found.low <= found.index <= found.high <= min(latest, len(series) - 1)
    assert split_posterior(series).sum() == pytest.approx(1)


@given(
    arrays(np.float64, st.integers(3, 40), elements=st.integers(-100, 100).map(float)),
    st.sampled_from([0.25, 2.0, 1024.0]),
)
def test_unit_and_direction_of_the_scores_do_not_matter(series: np.ndarray, unit: float) -> None:
    assert split_posterior(series) == pytest.approx(split_posterior(-unit * series), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_refused_by_its_place(wrong: float) -> None:
    with pytest.raises(ValueError, match="score 3 of 10 is"):
        change_point([0.0] * 3 + [wrong] + [0.0] * 6)


def test_a_table_is_not_a_series() -> None:
    with pytest.raises(ValueError, match="not one series"):
        change_point(np.zeros((4, 2)))
