"""An update in three bits a number and one step for every 128, so that it is less than 1/8 of float32.

    deltas   symmetric: −3 … 3 steps, a step being a third of the group's largest magnitude
    Fisher   its square root, 0 … 7 steps, since Fisher information spans many orders of magnitude

Rounding is deterministic. What it loses stays at the site as a residual and is added to the next update
(error feedback: Karimireddy et al., arXiv 1901.09847, algorithm 2), so that small, steady movements arrive.

Shape suffixes: P numbers of all tensors in the order of their names · G groups of 128 · S 128
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from medloop_model.checkpoint import Tensors
from medloop_model.errors import ShapeError
from medloop_model.federation.errors import CorruptUpdate, OversizeUpdate
from medloop_model.federation.update import Update, require_finite

GROUP = 128
BITS = 3
MOST_STEPS = 3  # of a delta, either way
MOST_ROOT_STEPS = 7  # of the root of Fisher information
HEADER_BYTES = 1024  # at most, of an update's six tensors

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Compressed:
    """An update as it travels, and what stays behind.

    Args:
        payload: a safetensors file; the same update and residual give the same bytes.
        residual: what rounding lost, by name, for the next update from the same site.
    """

    payload: bytes
    residual: Tensors


def compress(update: Update, residual: Tensors | None = None) -> Compressed:
    """Encode an update, with what the one before could not say.

    Args:
        update: what is to be said.
        residual: of the site's last update, or None for its first.

    Raises:
        CorruptUpdate: a number is a NaN or an infinity.
        ShapeError: the residual is of another model.
    """
    wanted = _with_residual(update, residual)
    require_finite(wanted)
    steps_G, codes_P = quantise(_flat(wanted.deltas))
    tensors: Tensors = {
        "base": np.frombuffer(bytes.fromhex(update.base_sha256), np.uint8),
        "samples": np.array([update.samples], np.int64),
        "delta.steps": steps_G,
        "delta.codes": pack_bits(codes_P),
    }
    if update.fisher:
        root_steps_G, root_codes_P = quantise_root(_flat(update.fisher))
        tensors |= {"fisher.steps": root_steps_G, "fisher.codes": pack_bits(root_codes_P)}
    said = _named(dequantise(steps_G, codes_P), _shapes(update.deltas))
    lost = {name: wanted.deltas[name] - said[name] for name in said}
    return Compressed(save(tensors), lost)


def decompress(payload: bytes, like: Tensors) -> Update:
    """The update that a payload holds.

    Args:
        payload: from `compress`, or from anybody.
        like: tensors of the names and shapes that the deltas must have: the base's shared weights.

    Raises:
        OversizeUpdate: more bytes than there can be.
        CorruptUpdate: not an update, or with a number that is none.
        ShapeError: an update of another model.
    """
    shapes = _shapes(like)
    numbers = sum(prod(shape) for shape in shapes.values())
    if len(payload) > (most := largest_payload(numbers)):
        raise OversizeUpdate(len(payload), most)
    try:
        tensors = load(payload)
        base, (samples,) = tensors["base"].tobytes().hex(), tensors["samples"].tolist()
        deltas_P = dequantise(*_read(tensors, "delta", numbers))
        fisher_P = dequantise_root(*_read(tensors, "fisher", numbers)) if "fisher.codes" in tensors else None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptUpdate(f"the payload can't be read as an update ({error}); send it again") from error
    if not isinstance(samples, int) or samples < 1:
        raise CorruptUpdate(f"the update says it stands on {samples} images; it takes at least 1")
    fisher = {} if fisher_P is None else _named(fisher_P, shapes)
    update = Update(base, samples, _named(deltas_P, shapes), fisher)
    require_finite(update)
    return update


def largest_payload(numbers: int) -> int:
    """Bytes that an update of so many numbers has at most, Fisher information included."""
    groups = -(-numbers // GROUP)
    return HEADER_BYTES + 2 * groups * (4 + GROUP * BITS // 8)


def quantise(values_P: Floats) -> tuple[Floats, Codes]:
    """Steps (G,) and codes (P,) 0 … 6, of which 3 is zero; off by half a step at most."""
    grouped_GS = _grouped(values_P)
    steps_G = np.abs(grouped_GS).max(axis=1) / np.float32(MOST_STEPS)
    steps_GS = _in_steps(grouped_GS, steps_G).clip(-MOST_STEPS, MOST_STEPS) + MOST_STEPS
    return steps_G, steps_GS.astype(np.uint8).ravel()[: len(values_P)]


def dequantise(steps_G: Floats, codes_P: Codes) -> Floats:
    """Inverse of `quantise` but for the rounding."""
    return _scaled(codes_P.astype(np.float32) - MOST_STEPS, steps_G)


def quantise_root(values_P: Floats) -> tuple[Floats, Codes]:
    """Steps (G,) and codes (P,) 0 … 7 of the root of numbers ≥ 0; the root is off by half a step at most."""
    grouped_GS = np.sqrt(_grouped(values_P).clip(min=0))
    steps_G = grouped_GS.max(axis=1) / np.float32(MOST_ROOT_STEPS)
    steps_GS = _in_steps(grouped_GS, steps_G).clip(0, MOST_ROOT_STEPS)
    return steps_G, steps_GS.astype(np.uint8).ravel()[: len(values_P)]


def dequantise_root(steps_G: Floats, codes_P: Codes) -> Floats:
    """Inverse of `quantise_root` but for the rounding."""
    with np.errstate(over="ignore"):
        return np.square(_scaled(codes_P.astype(np.float32), steps_G))


def pack_bits(codes_P: Codes) -> Codes:
    """Three bits a code, most significant first; the last byte is filled with zeros."""
    return np.packbits(np.unpackbits(codes_P[:, None], axis=1)[:, -BITS:])


def unpack_bits(packed: Codes, count: int) -> Codes:
    """Inverse of `pack_bits`."""
    bits = np.unpackbits(packed, count=count * BITS).reshape(count, BITS)
    return np.packbits(bits, axis=1)[:, 0] >> np.uint8(8 - BITS)


def _read(tensors: Tensors, part: str, numbers: int) -> tuple[Floats, Codes]:
    steps_G, packed = tensors[f"{part}.steps"], tensors[f"{part}.codes"]
    if packed.shape != (-(-numbers * BITS // 8),) or steps_G.shape != (-(-numbers // GROUP),):
        raise ShapeError(
            f"the {part} is of {packed.shape} bytes in {steps_G.shape} groups, not of {numbers} numbers: "
            "the site has another model"
        )
    if steps_G.dtype != np.float32 or not (np.isfinite(steps_G) & (steps_G >= 0)).all():
        raise CorruptUpdate(f"a step of the {part} is no float32 number ≥ 0; train again")
    return steps_G, unpack_bits(packed, numbers)


def _with_residual(update: Update, residual: Tensors | None) -> Update:
    if residual is None:
        return update
    if _shapes(residual) != _shapes(update.deltas):
        raise ShapeError("the residual is of another model; start again without it")
    return replace(update, deltas={name: delta + residual[name] for name, delta in update.deltas.items()})


def _grouped(values_P: Floats) -> Floats:
    """In rows of 128, the last one filled with zeros."""
    return np.pad(values_P, (0, -len(values_P) % GROUP)).reshape(-1, GROUP)


def _in_steps(values_GS: Floats, steps_G: Floats) -> Floats:
    """Rounded multiples of each group's step; a group of zeros stays so."""
    whole_GS: Floats = np.rint(values_GS / np.where(steps_G > 0, steps_G, np.float32(1))[:, None])
    return whole_GS


def _scaled(multiples_P: Floats, steps_G: Floats) -> Floats:
    with np.errstate(over="ignore"):  # a made-up step may be too large; `require_finite` says so
        scaled: Floats = (_grouped(multiples_P) * steps_G[:, None]).ravel()[: len(multiples_P)]
    return scaled


def _flat(tensors: Tensors) -> Floats:
    return np.concatenate([tensors[name].astype(np.float32).ravel() for name in sorted(tensors)])


def _named(values_P: Floats, shapes: Shapes) -> Tensors:
    named, start = {}, 0
    for name in sorted(shapes):
        end = start + prod(shapes[name])
        named[name] = values_P[start:end].reshape(shapes[name])
        start = end
    return named


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}
