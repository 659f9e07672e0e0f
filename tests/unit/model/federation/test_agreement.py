from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_model.federation.agreement import agreement, opposed
from medloop_model.federation.update import Update

LEAST = -0.05


def update(*numbers: float) -> Update:
    one, other = np.array(numbers[:2], np.float32), np.array(numbers[2:], np.float32)
    return Update("0" * 64, 1, {"one": one, "other": other})


def alike(count: int, seed: int, noise: float = 1.0) -> list[Update]:
    """Updates that share a direction, each with as much of its own."""
    draw = np.random.default_rng(seed)
    common = draw.normal(size=400)
    return [update(*(common + noise * draw.normal(size=400))) for _ in range(count)]


def found(updates: list[Update], least: float = LEAST) -> tuple[bool, ...]:
    return opposed([(cosine,) for cosine in agreement(updates)], least)


def turned(one: Update, times: float = -10.0) -> Update:
    return replace(one, deltas={name: np.float32(times) * delta for name, delta in one.deltas.items()})


def test_agreement_is_the_median_cosine_with_the_others_over_all_tensors() -> None:
    cosines = agreement([update(1, 0, 0), update(0, 2, 0), update(1, 1, 0), update(0, 0, 5)])
    assert cosines.tolist() == pytest.approx([0.0, 0.0, 0.5**0.5, 0.0])
    assert agreement([update(1, 0, 0), update(3, 4, 0)]).tolist() == pytest.approx([0.6, 0.6])


def test_how_long_an_update_is_does_not_count_and_none_at_all_agrees_with_nobody() -> None:
    some = alike(4, 0)
    np.testing.assert_allclose(agreement([turned(some[0], 1e-3), *some[1:]]), agreement(some), rtol=1e-4)
    assert agreement([update(0, 0, 0), *[update(1, 0, 0)] * 2])[0] == 0


@given(st.integers(3, 9), st.integers(0, 2**32 - 1), st.data())
def test_a_minority_that_is_turned_round_is_found_and_nobody_else(
    count: int, seed: int, data: st.DataObject
) -> None:
    cheats = data.draw(st.sets(st.integers(0, count - 1), max_size=(count - 1) // 2))
    sent = [turned(one) if place in cheats else one for place, one in enumerate(alike(count, seed))]
    # Of the others of an honest site more than half have to be honest, as the median asks.
    if 2 * len(cheats) < count - 1:
        assert found(sent) == tuple(place in cheats for place in range(count))


def test_where_there_is_no_majority_nobody_is_left_out() -> None:
    one, other, third, fourth = alike(4, 1)
    assert found([]) == ()
    assert found([one]) == (False,)
    assert found([one, turned(other)]) == (False, False)
    assert found([one, other, turned(third), turned(fourth)]) == (False,) * 4


def test_sites_that_have_nothing_in_common_all_count() -> None:
    draw = np.random.default_rng(2)
    unlike = [update(*draw.normal(size=4000)) for _ in range(6)]
    assert found(unlike) == (False,) * 6


def test_the_bound_can_be_switched_off() -> None:
    assert found([*alike(3, 3), turned(alike(1, 3)[0])], least=-1.0) == (False,) * 4


def test_a_site_is_judged_by_its_last_rounds() -> None:
    """When most is learned, one round tells little."""
    cheat, honest = (-0.24, -0.06, -0.04), (0.23, -0.01, -0.08)
    others = [(0.2,), (0.1,), (0.15,)]
    assert opposed([cheat, honest, *others], LEAST) == (True, False, False, False, False)
    assert opposed([(*cheat, 0.2, 0.2, 0.2), honest, *others], LEAST) == (False,) * 5  # mended since
