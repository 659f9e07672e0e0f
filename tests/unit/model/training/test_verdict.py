from __future__ import annotations

from dataclasses import replace

import pytest
from medloop_model.bootstrap import Interval
from medloop_model.training.validation import Comparison, Measured
from medloop_model.training.verdict import Limits, Validation, judge, judge_recalibrated, ruins_calibration

LIMITS = Limits(confidence=0.8, tolerance=0.02, calibration_tolerance=0.05, fewest_studies=16)


def side(gain: float = 0.1, growth: float = 0.0, studies: int = 20, margin: float = 0.01) -> Comparison:
    def exactly(value: float) -> Interval:
        return Interval(value, value, value)

    def measured(accuracy: float, error: float) -> Measured:
        return Measured(exactly(accuracy), exactly(accuracy), {}, exactly(error))

    return Comparison(
        images=studies,
        studies=studies,
        base=measured(0.8, 0.03),
        candidate=measured(0.8 + gain, 0.03 + growth),
        balanced=True,
        gain=exactly(gain),
        growth=exactly(growth),
        gain_bounds=(gain - margin, gain + margin),
        growth_bounds=(growth - margin, growth + margin),
    )


GOOD = Validation(new=side(), old=side(gain=0.0))


@pytest.mark.parametrize(
    ("validation", "passed", "says"),
    [
        (GOOD, True, "80.0% → 90.0% on 20 studies"),
        (replace(GOOD, new=None), False, "0 held-out studies since the change are too few"),
        (replace(GOOD, new=side(studies=15)), False, "15 held-out studies since the change are too few"),
        (replace(GOOD, new=side(gain=0.009)), False, "no gain is sure"),
        (replace(GOOD, old=side(gain=-0.029)), True, "better"),
        (replace(GOOD, old=side(gain=-0.031)), False, "loses on what was before"),
        (replace(GOOD, old=None), False, "too few"),
        (replace(GOOD, old=side(studies=3)), False, "3 held-out studies of before"),
        (replace(GOOD, new=side(growth=0.059)), True, "better"),
        (replace(GOOD, new=side(growth=0.061)), False, "since the change: calibration error 0.030 → 0.091"),
        (replace(GOOD, old=side(gain=0.0, growth=0.2)), False, "of before the change: calibration error"),
    ],
)
def test_a_trained_model_is_judged(validation: Validation, passed: bool, says: str) -> None:
    verdict = judge(validation, LIMITS, old_counts=True)
    assert verdict.passed is passed
    assert says in verdict.reason
    assert ruins_calibration(validation, LIMITS) is ("calibration" in verdict.reason)


def test_where_old_labels_do_not_count_none_are_needed() -> None:
    assert judge(replace(GOOD, old=None), LIMITS, old_counts=False).passed


@pytest.mark.parametrize(
    ("new", "passed"),
    [
        (side(gain=0.02), True),
        (side(gain=0.0, growth=-0.02), True),
        (side(gain=0.0, growth=0.0), False),
        (side(gain=-0.05, growth=-0.1), False),
        (side(studies=3), False),
        (None, False),
    ],
)
def test_moved_answers_are_more_often_right_or_better_calibrated(
    new: Comparison | None, passed: bool
) -> None:
    assert judge_recalibrated(Validation(new=new, old=None), LIMITS).passed is passed
