from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from medloop_services.drift_detection.memory import Packed, packed, unpacked
from numpy.typing import NDArray

floats = st.floats(-1e6, 1e6, width=32)


@given(arrays(np.float64, array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5), elements=floats))
def test_what_float32_holds_comes_back(array: NDArray[np.float64]) -> None:
    found = Packed.model_validate_json(Packed.of(array).model_dump_json()).unpacked()
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def test_packing_again_changes_nothing() -> None:
    memory = {"sums": np.random.default_rng(0).normal(size=(1, 2, 30))}
    once = packed(memory)
    assert packed(unpacked(once)) == once
