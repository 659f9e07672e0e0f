"""Which weights `medloop pretrain --ternary` makes ternary."""

from __future__ import annotations

import numpy as np
import pytest
from medloop_services.pretraining import Home
from medloop_services.replay.split import Split, name_studies
from medloop_services.ternary import Ternary

NOTHING = Split(np.zeros((2, 28, 28), np.uint8), np.array([0, 1]), name_studies("train", 2))


@pytest.mark.parametrize(
    ("ternary", "attention", "others"),
    [(Ternary.MLP, False, False), (Ternary.ATTENTION, True, False), (Ternary.ALL, True, True)],
)
def test_each_choice_includes_the_one_before(ternary: Ternary, attention: bool, others: bool) -> None:
    home = Home("drawn", "0", ("a", "b"), NOTHING, NOTHING, NOTHING, ternary)
    found = home.architecture
    assert found.ternary_attention == attention
    parts = (found.ternary_patch, found.ternary_position, found.ternary_head, found.ternary_norms)
    assert parts == (others,) * 4
