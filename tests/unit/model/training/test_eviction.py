from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_model.training.eviction import kept

EXAMPLES = st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 3)), max_size=40)


@given(examples=EXAMPLES, capacity=st.integers(0, 50))
def test_no_more_stay_than_may_and_shares_are_as_even_as_there_are_examples(
    examples: list[tuple[str, int]], capacity: int
) -> None:
    domains, labels = [domain for domain, _ in examples], [label for _, label in examples]
    stay = kept(domains, labels, capacity)
    assert stay == sorted(set(stay))
    assert len(stay) == min(capacity, len(examples))
    before, after = Counter(domains), Counter(domains[place] for place in stay)
    largest = max(after.values(), default=0)
    # Whoever lost one is among the largest still, give or take the one that made no even number.
    assert all(after[name] >= largest - 1 for name in before if after[name] < before[name])


def test_the_oldest_of_the_largest_class_goes_first() -> None:
    labels = [0, 1, 0, 0, 1, 0]
    assert kept([""] * 6, labels, 5) == [1, 2, 3, 4, 5]
    assert kept([""] * 6, labels, 4) == [1, 3, 4, 5]
    assert kept([""] * 6, labels, 3) == [1, 4, 5]


def test_a_small_domain_keeps_what_it_has() -> None:
    domains = ["home"] * 3 + ["away"] * 30
    stay = kept(domains, [0] * 33, 10)
    assert stay[:3] == [0, 1, 2]
    assert stay[3:] == list(range(26, 33))


def test_a_class_that_is_rare_in_its_domain_stays() -> None:
    stay = kept(["home"] * 20, [1, *[0] * 19], 4)
    assert stay == [0, 17, 18, 19]


@pytest.mark.parametrize("capacity", [3, 4, 50])
def test_what_fits_stays_untouched(capacity: int) -> None:
    assert kept(["a", "b", "a"], [0, 0, 1], capacity) == [0, 1, 2]
