"""Where the compiled kernels are: one cubin a source and architecture, and PTX for every later one.

Files are named after the hash of all sources, so that nothing stale is ever loaded and nothing is compiled
twice. `build` writes them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from medloop_kernels.errors import BackendUnavailable

SOURCES = Path(__file__).parent
COMPILED = SOURCES / "compiled"
PTX = "compute_80"
"""The virtual architecture that PTX is for: what it has, every later GPU has."""


def source_hash() -> str:
    """First twelve digits of the SHA-256 of all sources."""
    content = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.cu*")):
        content.update(path.name.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:12]


def image_file(source: str, architecture: str) -> Path:
    """Where a source's cubin, or its PTX for a virtual architecture, is or would be."""
    ending = "ptx" if architecture == PTX else "cubin"
    return COMPILED / f"{source}.{architecture}.{source_hash()}.{ending}"


def load_image(source: str, architecture: str) -> bytes:
    """A source's cubin for an architecture, else its PTX with the zero byte that ends it.

    Raises:
        BackendUnavailable: neither has been compiled.
    """
    cubin, ptx = image_file(source, architecture), image_file(source, PTX)
    if cubin.is_file():
        return cubin.read_bytes()
    if ptx.is_file():
        return ptx.read_bytes() + b"\0"
    raise BackendUnavailable(
        f"the CUDA kernels are not compiled for {architecture}: {cubin.name} and {ptx.name} are missing; "
        "run `make cuda`."
    )
