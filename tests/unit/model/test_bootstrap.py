from __future__ import annotations

import numpy as np
import pytest
from medloop_model.bootstrap import Interval, study_draws


def test_images_of_a_study_are_drawn_together() -> None:
    draws = study_draws(np.array(["a", "b", "a", "c"]), seed=0, draws=50)
    assert draws.shape == (50, 4)
    np.testing.assert_array_equal(draws[:, 0], draws[:, 2])
    assert (draws[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_the_order_of_the_images_plays_no_part() -> None:
    studies = np.array(["c", "a", "b", "a"])
    order = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(study_draws(studies, 7)[:, order], study_draws(studies[order], 7))


def test_of_no_image_nothing_is_drawn() -> None:
    assert study_draws(np.zeros(0, np.str_), 0).shape == (1000, 0)


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    values = np.random.default_rng(0).normal(size=400)
    draws = study_draws(np.arange(400).astype(np.str_), 1, draws=4000)
    interval = Interval.of(float(values.mean()), draws @ values / 400)
    error = values.std() / 20
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_images_that_repeat_a_study_do_not_make_a_figure_surer() -> None:
    values = np.random.default_rng(0).normal(size=30)
    alone = study_draws(np.arange(30).astype(np.str_), 1) @ values / 30
    studies = np.repeat(np.arange(30), 10).astype(np.str_)
    tenfold = study_draws(studies, 1) @ np.repeat(values, 10) / 300
    assert tenfold.std() == pytest.approx(alone.std())


def test_where_there_is_no_value_there_are_no_bounds() -> None:
    interval = Interval.of(float("nan"), np.array([1.0, 2.0]))
    assert np.isnan([interval.value, interval.low, interval.high]).all()
