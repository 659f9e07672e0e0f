from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_services.publisher.comparison import compare

NAMES = ("a", "b", "c")
answers = st.lists(st.tuples(*[st.sampled_from(NAMES)] * 3), min_size=1, max_size=60)


def test_balanced_accuracy_is_the_mean_recall_whatever_the_mix() -> None:
    labels = ["a"] * 8 + ["b"] * 2
    base = ["a"] * 8 + ["a"] * 2
    candidate = ["a"] * 4 + ["b"] * 4 + ["b"] * 2
    found = compare(labels, base, candidate, confidence=0.9)
    assert found.base == pytest.approx(0.5)
    assert found.candidate == pytest.approx(0.75)
    assert found.gain == pytest.approx(0.25)
    assert found.examples == 10


def test_bounds_equal_bonett_and_price_by_hand() -> None:
    # One class, 20 pairs, 6 won, 1 lost: p12 = 7/22, p21 = 2/22, z(0.95) = 1.6449.
    labels = ["a"] * 20
    base = ["b"] * 6 + ["a"] + ["a"] * 13
    candidate = ["a"] * 6 + ["b"] + ["a"] * 13
    found = compare(labels, base, candidate, confidence=0.95)
    middle = 5 / 22
    margin = 1.6448536 * ((9 / 22 - middle**2) / 22) ** 0.5
    assert found.lower == pytest.approx(middle - margin)
    assert found.upper == pytest.approx(middle + margin)


@given(rows=answers)
def test_swapping_the_models_mirrors_the_interval(rows: list[tuple[str, str, str]]) -> None:
    labels, base, candidate = zip(*rows, strict=True)
    forward = compare(labels, base, candidate, confidence=0.8)
    backward = compare(labels, candidate, base, confidence=0.8)
    assert forward.lower == pytest.approx(-backward.upper)
    assert forward.upper == pytest.approx(-backward.lower)
    assert forward.lower < forward.upper
    assert forward.gain == pytest.approx(-backward.gain)


@given(rows=answers)
def test_equal_models_show_neither_gain_nor_loss(rows: list[tuple[str, str, str]]) -> None:
    labels, base, _ = zip(*rows, strict=True)
    found = compare(labels, base, base, confidence=0.8)
    assert found.lower < 0 < found.upper
    assert found.gain == 0


def test_the_lower_bound_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    won, lost, pairs, rounds = 0.25, 0.10, 40, 1500
    below = 0
    for _ in range(rounds):
        draw = rng.choice(3, size=2 * pairs, p=[won, lost, 1 - won - lost])
        labels = ["a"] * pairs + ["b"] * pairs
        base = [label if kind != 0 else "x" for label, kind in zip(labels, draw, strict=True)]
        candidate = [label if kind != 1 else "x" for label, kind in zip(labels, draw, strict=True)]
        below += compare(labels, base, candidate, confidence=0.9).lower <= won - lost
    assert 0.88 <= below / rounds <= 0.96


@pytest.mark.parametrize("sizes", [(4, 4, 2, 1), (7, 2, 3), (30, 6, 5, 3)], ids=str)
def test_bounds_of_small_classes_cover_gains_and_losses_nearly_as_often_as_they_say(
    sizes: tuple[int, ...],
) -> None:
    # With one added a class instead of one in all, the bound that a large difference nears covers 39 to 59 %.
    rng = np.random.default_rng(1)
    rounds, won, lost = 1500, 0.4, 0.05
    labels = [name for name, size in zip("abcd", sizes, strict=False) for _ in range(size)]
    gains = losses = 0
    for _ in range(rounds):
        draw = rng.choice(3, size=len(labels), p=[won, lost, 1 - won - lost])
        better = ["" if which == 1 else name for name, which in zip(labels, draw, strict=True)]
        worse = ["" if which == 0 else name for name, which in zip(labels, draw, strict=True)]
        gains += compare(labels, worse, better, confidence=0.8).upper >= won - lost
        losses += compare(labels, better, worse, confidence=0.8).lower <= lost - won
    assert 0.68 <= gains / rounds <= 0.92
    assert 0.68 <= losses / rounds <= 0.92
