"""THE packed format: ternary weights, two bits a code, the same bytes on every machine.

A weight matrix has N rows (outputs) and K columns (inputs) of codes in {-1, 0, 1}. Every row is cut
into blocks of 128 columns; a block takes 32 bytes. Byte j of a block holds four codes that lie 32
columns apart, each stored as code + 1 (so 0, 1 or 2; 3 is never written):

    bits of byte j     7 6        5 4        3 2        1 0
    column in block   96 + j     64 + j     32 + j        j          j = 0 … 31

One shift and one mask therefore turn 32 neighbouring bytes into 32 neighbouring columns, and four
bytes read as one word into four neighbouring columns, without a shuffle on any instruction set.
Columns past K in the last block hold code 0 (bits 01). Blocks follow each other, then rows:

    uint8 (N, 32 · ceil(K / 128)), C order

Nothing in the bytes depends on the machine: no word is stored, so there is no byte order.
The per-output scale and bias are separate float32 vectors beside the packed matrix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.errors import LayoutError

BLOCK_CODES = 128
BLOCK_BYTES = 32
CODES_PER_BYTE = 4

_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)


def packed_width(columns: int) -> int:
    """Bytes that a row of `columns` codes takes."""
    return BLOCK_BYTES * -(-columns // BLOCK_CODES)


def pack(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Pack ternary codes.

    Args:
        codes: int8 (N, K), each -1, 0 or 1.

    Returns:
        uint8 (N, packed_width(K)).

    Raises:
        LayoutError: `codes` is not an int8 matrix or holds another value.

    >>> pack(np.array([[1, -1, 0]], dtype=np.int8))[0, :4].tolist()
    [86, 84, 85, 85]
    """
    if codes.ndim != 2 or codes.dtype != np.int8:
        raise LayoutError(f"pack takes an int8 matrix (outputs, inputs), not {codes.dtype} {codes.shape}.")
    if codes.size and (codes.min() < -1 or codes.max() > 1):
        raise LayoutError(
            f"codes must be -1, 0 or 1, found {codes.min()} to {codes.max()}: quantize the weights first."
        )
    rows, columns = codes.shape
    blocks = packed_width(columns) // BLOCK_BYTES
    stored = np.ones((rows, blocks * BLOCK_CODES), dtype=np.uint8)
    stored[:, :columns] = codes + 1
    planes = stored.reshape(rows, blocks, CODES_PER_BYTE, BLOCK_BYTES)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(planes << _SHIFTS[:, None], axis=2)
    return packed.reshape(rows, blocks * BLOCK_BYTES)


def unpack(packed: NDArray[np.uint8], columns: int) -> NDArray[np.int8]:
    """Read packed codes back; the inverse of `pack`.

    Args:
        packed: uint8 (N, packed_width(columns)).
        columns: K, the number of inputs of the matrix.

    Returns:
        int8 (N, columns).

    Raises:
        LayoutError: the width does not belong to `columns`, or a stored value is 3, or padding is not code 0.
    """
    require_width(packed, columns)
    rows, width = packed.shape
    planes = packed.reshape(rows, width // BLOCK_BYTES, 1, BLOCK_BYTES) >> _SHIFTS[:, None] & 3
    stored = planes.reshape(rows, width * CODES_PER_BYTE)
    if stored.size and stored.max() > 2:
        raise LayoutError(f"packed weights hold the bit pattern 11 {_first(stored > 2)}, which no code has.")
    padding = stored != 1
    padding[:, :columns] = False
    if padding.any():
        raise LayoutError(f"padding past column {columns} is not code 0 {_first(padding)}.")
    return stored[:, :columns].astype(np.int8) - np.int8(1)


def _first(wrong: NDArray[np.bool_]) -> str:
    """Where the first wrong code of (N, padded K) lies, for people with a hex editor."""
    row, column = divmod(int(wrong.argmax()), wrong.shape[1])
    block, in_block = divmod(column, BLOCK_CODES)
    width = wrong.shape[1] // CODES_PER_BYTE
    offset = row * width + block * BLOCK_BYTES + in_block % BLOCK_BYTES
    return f"at byte {offset} of the tensor (row {row}, column {column}): the file is damaged"


def require_width(packed: NDArray[np.uint8], columns: int) -> None:
    """Raise LayoutError unless `packed` is a uint8 matrix as wide as `columns` codes need."""
    if packed.ndim != 2 or packed.dtype != np.uint8 or packed.shape[1] != packed_width(columns):
        raise LayoutError(
            f"{columns} inputs take uint8 (outputs, {packed_width(columns)}), "
            f"not {packed.dtype} {packed.shape}: this matrix belongs to another layer."
        )
