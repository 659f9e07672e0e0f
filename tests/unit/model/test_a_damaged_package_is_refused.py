"""The loader against damage of any kind: a typed error that says what is wrong, or a model that runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from medloop_kernels import KernelError
from medloop_model import pretrained
from medloop_model.checkpoint import load_package
from medloop_model.engine import Engine, EngineOutput
from medloop_model.errors import CorruptCheckpoint, ModelError

WHOLE = pretrained.path("phantom").read_bytes()
HEADER = 8 + int.from_bytes(WHOLE[:8], "little")
IMAGE = np.zeros((1, 28, 28), dtype=np.uint8)
CLEAN = Engine(load_package(pretrained.path("phantom")))(IMAGE).logits

fuzzing = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def use(path: Path) -> EngineOutput:
    """Load a package and run it, as inference does."""
    with np.errstate(all="ignore"):
        return Engine(load_package(path))(IMAGE)


def test_the_whole_package_is_used(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE)
    assert np.array_equal(use(path).logits, CLEAN)


@fuzzing
@given(size=st.integers(8, len(WHOLE) - 1))
def test_where_a_file_is_cut_short_is_said(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE[:size])
    end = f"its tensors end at byte {len(WHOLE)}" if size >= HEADER else f"ends at byte {HEADER}"
    with pytest.raises(CorruptCheckpoint, match=f"cut short at byte {size}.*{end}"):
        use(path)


@fuzzing
@given(size=st.integers(0, 7))
def test_less_than_a_header_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE[:size])
    with pytest.raises(CorruptCheckpoint):
        use(path)


@pytest.mark.parametrize("version", [b"medloop-package/2", b"medloop-package/0"])
def test_another_version_of_the_format_is_refused(tmp_path: Path, version: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE.replace(b"medloop-package/1", version))
    with pytest.raises(CorruptCheckpoint, match=f"format is '{version.decode()}'"):
        use(path)


@fuzzing
@given(
    damage=st.lists(
        st.tuples(st.one_of(st.integers(0, HEADER), st.integers(0, len(WHOLE) - 1)), st.integers(0, 255)),
        min_size=1,
        max_size=8,
    )
)
def test_any_changed_bytes_give_a_typed_error_or_a_model_that_runs(
    tmp_path: Path, damage: list[tuple[int, int]]
) -> None:
    content = bytearray(WHOLE)
    for offset, value in damage:
        content[offset] = value
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    logits = None
    with suppress(ModelError, KernelError):  # any other error fails the test
        logits = use(path).logits
    assert logits is None or logits.shape == CLEAN.shape


def with_header(change: Callable[[dict[str, Any]], object]) -> bytes:
    header = json.loads(WHOLE[8:HEADER])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + WHOLE[HEADER:] + bytes(2)


def foreign(dtype: str, shape: list[int], size: int = 2) -> bytes:
    end = len(WHOLE) - HEADER
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
    return with_header(lambda header: header.update({"packed/extra": entry}))[: None if size else -2]


def measured(**measures: object) -> bytes:
    def change(header: dict[str, Any]) -> None:
        architecture = json.loads(header["__metadata__"]["architecture"]) | measures
        header["__metadata__"]["architecture"] = json.dumps(architecture)

    return with_header(change)[:-2]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(foreign("BF16", [1]), id="bfloat16"),
        pytest.param(foreign("F8_E4M3", [2]), id="float8"),
        pytest.param(foreign("F32", [0, 2**62], 0), id="too large an axis"),
        pytest.param(foreign("U8", [1] * 69 + [2]), id="70 axes"),
        pytest.param(measured(depth=4.0), id="a depth of 4.0"),
        pytest.param(measured(image_size=28.0), id="images of 28.0"),
        pytest.param(
            with_header(lambda header: header["__metadata__"].update(provenance="[" * 100_000))[:-2],
            id="nested provenance",
        ),
        pytest.param(
            with_header(lambda header: header["__metadata__"].update(architecture="[" * 100_000))[:-2],
            id="nested architecture",
        ),
        pytest.param((200_000).to_bytes(8, "little") + b"[" * 200_000, id="nested header"),
    ],
)
def test_a_file_that_somebody_else_made_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptCheckpoint):
        load_package(path)
