"""Which examples a full memory lets go: those that others stand in for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

Label = TypeVar("Label", int, str)


def kept(domains: Sequence[str], labels: Sequence[Label], capacity: int) -> list[int]:
    """Choose examples such that every domain, and within it every class, keeps as even a share as it can.

    One by one, the domain with the most examples gives up the first one of its largest class. Of equally
    large ones, the first by name or number gives.

    Args:
        domains: what each example comes from; which example is first is the caller's choice.
        labels: its class, a name or a number.
        capacity: how many may stay.

    Returns:
        Places of those that stay, in their order.
    """
    groups: dict[str, dict[Label, list[int]]] = {}
    for place, (domain, label) in enumerate(zip(domains, labels, strict=True)):
        groups.setdefault(domain, {}).setdefault(label, []).append(place)
    sizes = Counter(domains)
    given_up: Counter[tuple[str, Label]] = Counter()
    for _ in range(len(domains) - capacity):
        domain = min(sizes, key=lambda name: (-sizes[name], name))
        classes = groups[domain]
        label = min(classes, key=lambda each: (given_up[domain, each] - len(classes[each]), each))
        sizes[domain] -= 1
        given_up[domain, label] += 1
    return sorted(
        place
        for domain, classes in groups.items()
        for label, places in classes.items()
        for place in places[given_up[domain, label] :]
    )
