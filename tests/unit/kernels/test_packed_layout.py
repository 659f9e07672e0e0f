from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from medloop_kernels import LayoutError, pack, packed_width, unpack
from medloop_kernels.layout import BLOCK_BYTES, BLOCK_CODES

codes_of_any_shape = arrays.arrays(
    np.int8,
    st.tuples(st.integers(0, 5), st.integers(0, 300)),
    elements=st.integers(-1, 1),
)


@given(codes_of_any_shape)
def test_unpacking_reverses_packing(codes):
    packed = pack(codes)
    assert packed.shape == (len(codes), packed_width(codes.shape[1]))
    np.testing.assert_array_equal(unpack(packed, codes.shape[1]), codes)


@pytest.mark.parametrize(("columns", "width"), [(0, 0), (1, 32), (128, 32), (129, 64), (512, 128)])
def test_a_row_takes_whole_blocks(columns, width):
    assert packed_width(columns) == width


@pytest.mark.parametrize("column", [0, 31, 32, 64, 95, 96, 127, 128, 160, 255])
def test_each_column_has_the_bits_the_picture_gives_it(column):
    codes = np.zeros((1, 2 * BLOCK_CODES), dtype=np.int8)
    codes[0, column] = 1
    packed = pack(codes)[0]
    block, within = divmod(column, BLOCK_CODES)
    byte = block * BLOCK_BYTES + within % 32
    expected = np.full(2 * BLOCK_BYTES, 0b01010101, dtype=np.uint8)
    expected[byte] ^= 0b11 << (2 * (within // 32))
    np.testing.assert_array_equal(packed, expected)


@pytest.mark.parametrize("bad", [2, -2, 127, -128])
def test_only_ternary_codes_are_packed(bad):
    with pytest.raises(LayoutError, match="quantize the weights"):
        pack(np.array([[0, bad]], dtype=np.int8))


@pytest.mark.parametrize("codes", [np.zeros((2, 3), dtype=np.int32), np.zeros(3, dtype=np.int8)])
def test_packing_takes_an_int8_matrix(codes):
    with pytest.raises(LayoutError, match="int8 matrix"):
        pack(codes)


def test_a_width_of_another_layer_is_refused():
    with pytest.raises(LayoutError, match="another layer"):
        unpack(pack(np.zeros((2, 129), dtype=np.int8)), 128)


def test_the_unused_bit_pattern_is_refused():
    packed = pack(np.zeros((1, 96), dtype=np.int8))
    packed[0, 3] |= 0b11
    with pytest.raises(LayoutError, match="damaged"):
        unpack(packed, 96)


def test_padding_other_than_zero_is_refused():
    packed = pack(np.zeros((1, 96), dtype=np.int8))
    packed[0, 31] = 0b10010101
    with pytest.raises(LayoutError, match="padding past column 96"):
        unpack(packed, 96)
