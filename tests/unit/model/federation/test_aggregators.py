from __future__ import annotations

from collections.abc import Callable

import bench_aggregators
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medloop_model.federation.aggregators import soft_vote, trimmed_mean, weighted_mean
from medloop_model.training.quantizers import ternary_codes
from scipy.stats import trim_mean

Tensors = dict[str, np.ndarray]


def sites(count: int, seed: int = 0) -> list[Tensors]:
    draw = np.random.default_rng(seed)
    shapes = {"a.weight": (5, 4), "b.bias": (3,)}
    return [
        {name: draw.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(count)
    ]


numbers = st.floats(-1e4, 1e4, width=32)


def several(least: int = 1, most: int = 6) -> st.SearchStrategy[list[Tensors]]:
    return st.lists(
        arrays(np.float32, 6, elements=numbers).map(lambda x: {"a": x}), min_size=least, max_size=most
    )


def test_the_weighted_mean_is_numpys_average() -> None:
    updates, weights = sites(4), [3, 1, 7, 2]
    for name, merged in weighted_mean(updates, weights).items():
        expected = np.average([update[name] for update in updates], axis=0, weights=weights)
        np.testing.assert_allclose(merged, expected, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
def test_the_trimmed_mean_is_scipys(count: int) -> None:
    updates = sites(count)
    share = {1: 0.0, 2: 0.0, 3: 0.34, 5: 0.2, 10: 0.2}[count]
    for name, merged in trimmed_mean(updates, 0.2).items():
        expected = trim_mean([update[name] for update in updates], share, axis=0)
        np.testing.assert_allclose(merged, expected, rtol=1e-5, atol=1e-7)


def test_both_means_are_flowers() -> None:
    """Flower's own functions, in their environment where it is installed: `make bench-peers`."""
    if not bench_aggregators.PYTHON.is_file():
        pytest.skip("Flower isn't installed: make bench-peers")
    draw = np.random.default_rng(0)
    updates, samples = draw.normal(0, 1, (5, 1000)).astype(np.float32), np.array([3, 1, 7, 2, 4])
    theirs = bench_aggregators.flower(updates, samples)
    tensors = [{"a": update} for update in updates]
    np.testing.assert_allclose(weighted_mean(tensors, list(samples))["a"], theirs["mean"], atol=1e-6)
    np.testing.assert_allclose(trimmed_mean(tensors, 0.2)["a"], theirs["trimmed"], atol=1e-6)


AGGREGATORS: list[Callable[[list[Tensors]], Tensors]] = [
    lambda updates: weighted_mean(updates, [1.0] * len(updates)),
    lambda updates: trimmed_mean(updates, 0.2),
    lambda updates: {"a": soft_vote([update["a"] for update in updates], [1.0] * len(updates))},
]
each_aggregator = pytest.mark.parametrize("aggregate", AGGREGATORS, ids=["mean", "trimmed", "vote"])


@pytest.mark.parametrize("aggregate", AGGREGATORS[:2], ids=["mean", "trimmed"])
@given(one=several(1, 1), count=st.integers(1, 6))
def test_sites_that_agree_are_followed(
    aggregate: Callable[[list[Tensors]], Tensors], one: list[Tensors], count: int
) -> None:
    np.testing.assert_allclose(aggregate(one * count)["a"], one[0]["a"], rtol=1e-6)


@each_aggregator
@given(updates=several(2), seed=st.integers(0, 1000))
def test_the_order_of_sites_does_not_matter(
    aggregate: Callable[[list[Tensors]], Tensors], updates: list[Tensors], seed: int
) -> None:
    shuffled = [updates[place] for place in np.random.default_rng(seed).permutation(len(updates))]
    np.testing.assert_allclose(aggregate(shuffled)["a"], aggregate(updates)["a"], rtol=1e-5, atol=1e-3)


@given(
    honest=several(4, 4),
    poison=arrays(np.float32, 6, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
)
def test_one_of_five_can_not_lead_a_trimmed_mean_out_of_the_honest_range(
    honest: list[Tensors], poison: np.ndarray
) -> None:
    merged = trimmed_mean([*honest, {"a": poison}], 0.2)["a"]
    stacked = np.stack([update["a"] for update in honest])
    slack = 1e-6 * np.abs(stacked).max()
    assert (merged >= stacked.min(axis=0) - slack).all()
    assert (merged <= stacked.max(axis=0) + slack).all()


latents = arrays(np.float32, (6, 5), elements=st.floats(-10, 10, width=16))


@given(votes=st.lists(st.tuples(latents, st.integers(1, 9)), min_size=1, max_size=5))
def test_the_codes_of_a_soft_vote_are_the_rounded_votes(votes: list[tuple[np.ndarray, int]]) -> None:
    weights, counts = [weight for weight, _ in votes], [count for _, count in votes]
    codes = np.stack([ternary_codes(torch.from_numpy(weight))[0].numpy() for weight in weights])
    vote = np.average(codes.astype(np.float64), axis=0, weights=counts)
    merged = soft_vote(weights, counts)
    found = ternary_codes(torch.from_numpy(merged))[0].numpy()
    clear = np.abs(np.abs(vote) - 0.5) > 1e-3
    if np.abs(vote).max() > 0.51:  # else no site's vote is heard and the scale is what is left
        np.testing.assert_array_equal(found[clear], np.rint(vote)[clear])


def test_a_soft_vote_keeps_the_scale_that_codes_are_multiplied_with() -> None:
    draw = np.random.default_rng(0)
    weight = draw.normal(0, 0.05, (64, 32)).astype(np.float32)
    near = [weight + draw.normal(0, 0.005, weight.shape).astype(np.float32) for _ in range(4)]
    _, scale = ternary_codes(torch.from_numpy(soft_vote(near, [1] * 4)))
    scales = [float(ternary_codes(torch.from_numpy(each))[1]) for each in near]
    assert float(scale) == pytest.approx(np.mean(scales), rel=1e-4)


def test_in_a_soft_vote_nobody_shouts() -> None:
    quiet = [np.full((4, 4), 0.01, np.float32)] * 4
    loud = np.full((4, 4), -1e6, np.float32)
    assert (soft_vote([*quiet, loud], [1] * 5) > 0).all()


@pytest.mark.parametrize("count", [2, 4, 6])
def test_a_tie_is_no_code_and_stays_none_in_a_file(count: int) -> None:
    """Of two sites one in six codes is a tie; float16 must not decide for a whole layer at once."""
    for seed in range(5):
        draw = np.random.default_rng(seed)
        weights = [draw.normal(0, 1, (192, 96)).astype(np.float32) for _ in range(count)]
        codes = [ternary_codes(torch.from_numpy(weight))[0].numpy() for weight in weights]
        mean = np.mean(codes, axis=0, dtype=np.float64)
        won = np.sign(mean) * (np.abs(mean) > 0.5 + 1e-6)
        kept = soft_vote(weights, [1] * count).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(ternary_codes(torch.from_numpy(kept))[0].numpy(), won)
