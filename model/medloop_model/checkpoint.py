"""One safetensors file a model: what the engine runs, training goes on from and monitoring compares to.

```
packed/…      what engine.py runs: 2-bit weights, scales, and what stays in full precision
latent/…      shadow weights by their torch names, which training moves
fisher/…      diagonal Fisher information of each latent weight, normalised to mean 1
reference/…   statistics of the data that the model is at home with
metadata      format, architecture (JSON), provenance (JSON: command, seed, data and its digest, accuracy)
```

A teacher is a file of the same kind with `latent/…` only. Nothing here can run code from a file: pickles are
refused unread. The header is written here and not by the safetensors library, whose metadata comes in a
random order: the same package must give the same bytes, since its digest is its version.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from medloop_model.architecture import Architecture
from medloop_model.errors import (
    CorruptCheckpoint,
    DigestMismatch,
    PickledCheckpoint,
    UnsupportedArchitecture,
)

FORMAT = "medloop-package/1"

Tensors = dict[str, NDArray[Any]]

_PARTS = ("packed", "latent", "fisher", "reference")
_PICKLE_MAGICS = (b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_HEADER_ALIGNMENT = 8
_LENGTH_BYTES = 8  # of the header, at the file's start
_LONGEST_HEADER = 100_000_000  # what the format allows
_DTYPES = {
    np.dtype(name): code
    for name, code in {
        "<f8": "F64",
        "<i8": "I64",
        "<f4": "F32",
        "<i4": "I32",
        "<f2": "F16",
        "i1": "I8",
        "u1": "U8",
    }.items()
}


@dataclass(frozen=True)
class ModelPackage:
    """A model as it travels; tensor names carry no part prefix.

    Args:
        architecture: the network's measures and class names.
        packed: tensors that the engine runs.
        latent: shadow weights, fp16 or fp32.
        fisher: diagonal Fisher information, same names as latent, fp16.
        reference: the monitoring reference.
        provenance: where the model comes from; JSON values.
    """

    architecture: Architecture
    packed: Tensors = field(default_factory=dict)
    latent: Tensors = field(default_factory=dict)
    fisher: Tensors = field(default_factory=dict)
    reference: Tensors = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def load_package(
    path: Path, parts: Iterable[str] = ("packed",), expected_sha256: str | None = None
) -> ModelPackage:
    """Read some parts of a package; the others stay on disk and are empty in the result.

    Raises:
        PickledCheckpoint: the file is a pickle or a zip of pickles.
        CorruptCheckpoint: the file is missing, cut short or of another format.
        DigestMismatch: expected_sha256 is given and isn't the file's.
    """
    wanted = tuple(parts)
    _refuse_pickle(path)
    if expected_sha256 is not None and (found := digest(path)) != expected_sha256:
        raise DigestMismatch(path, expected_sha256, found)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {part: _read_part(file, part) for part in wanted}
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        # The last three are numpy's, of types that it lacks and of shapes that nothing can have.
        reason = _where_cut_short(path) or error
        raise CorruptCheckpoint(path, f"can't be read as safetensors ({reason})") from error
    if metadata.get("format") != FORMAT:
        raise CorruptCheckpoint(path, f"format is {metadata.get('format')!r}, not {FORMAT!r}")
    for part in wanted:
        if part in {"packed", "latent"} and not tensors[part]:
            raise CorruptCheckpoint(path, f"has no {part} tensors")
    return ModelPackage(_architecture(path, metadata), provenance=_provenance(path, metadata), **tensors)


def save_package(package: ModelPackage, path: Path) -> str:
    """Write a package in one step: readers see the old file or the whole new one.

    Returns:
        The file's SHA-256 in hex; equal packages give equal bytes.
    """
    tensors = {f"{part}/{name}": tensor for part in _PARTS for name, tensor in getattr(package, part).items()}
    metadata = {
        "architecture": package.architecture.to_json(),
        "format": FORMAT,
        "provenance": json.dumps(dict(package.provenance), sort_keys=True),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    checksum = hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            for chunk in _serialise(tensors, metadata):
                checksum.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return checksum.hexdigest()


def load_teacher(path: Path) -> ModelPackage:
    """Read a full-precision teacher: `latent` alone.

    Raises:
        CorruptCheckpoint, PickledCheckpoint: as `load_package`; also when the file holds a quantised model.
    """
    teacher = load_package(path, parts=("latent",))
    if teacher.architecture.quantized:
        raise CorruptCheckpoint(path, "holds a quantised model, not a full-precision teacher")
    return teacher


def save_teacher(teacher: ModelPackage, path: Path) -> str:
    """Write a teacher's architecture, latent weights and provenance; returns the file's SHA-256 in hex."""
    return save_package(
        ModelPackage(teacher.architecture, latent=teacher.latent, provenance=teacher.provenance), path
    )


def digest(path: Path) -> str:
    """SHA-256 of a file in hex.

    Raises:
        CorruptCheckpoint: the file can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorruptCheckpoint(path, f"can't be read ({error})") from error


def _refuse_pickle(path: Path) -> None:
    """Tell a pickle by its first bytes, since its name may say anything."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise CorruptCheckpoint(path, f"can't be read ({error})") from error
    if magic.startswith(_PICKLE_MAGICS):
        # A safetensors file starts with its header's length, which may end in the two bytes of a bare
        # pickle's magic; only a safetensors file then has "{" as its ninth byte.
        with path.open("rb") as file:
            if file.read(9)[8:9] != b"{":
                raise PickledCheckpoint(path)


def _where_cut_short(path: Path) -> str | None:
    """At which byte a file ends before what its header announces; None if that is not what is wrong."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header_end = _LENGTH_BYTES + int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if _LENGTH_BYTES <= size < header_end <= _LENGTH_BYTES + _LONGEST_HEADER:
            return f"cut short at byte {size}, inside its header, which ends at byte {header_end}"
        if size < header_end:
            return None
        try:
            header = json.loads(file.read(header_end - _LENGTH_BYTES))
            entries = [entry for name, entry in header.items() if name != "__metadata__"]
            end = header_end + max(int(entry["data_offsets"][1]) for entry in entries)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
            return None
    return f"cut short at byte {size}; its tensors end at byte {end}" if size < end else None


def _read_part(file: Any, part: str) -> Tensors:
    prefix = f"{part}/"
    names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no mapping)
    return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def _architecture(path: Path, metadata: Mapping[str, str]) -> Architecture:
    try:
        return Architecture.from_json(metadata["architecture"])
    except (KeyError, UnsupportedArchitecture) as error:
        raise CorruptCheckpoint(path, f"has no usable architecture ({error})") from error


def _provenance(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        provenance = json.loads(metadata["provenance"])
    except (KeyError, ValueError, RecursionError) as error:
        raise CorruptCheckpoint(path, f"has no usable provenance ({error})") from error
    if not isinstance(provenance, dict):
        raise CorruptCheckpoint(path, "has a provenance that isn't a JSON object")
    return provenance


def _serialise(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Iterator[bytes]:
    """The safetensors format: header length (u64, little-endian), JSON header, tensors without gaps.

    Wide types come first, so that every tensor is aligned to its own element size.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name, tensor in ordered:
        end = position + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype.newbyteorder("<")],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    yield len(text).to_bytes(8, "little")
    yield text
    for _, tensor in ordered:
        yield np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes()
