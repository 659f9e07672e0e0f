from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated_gpu import EmulatedGpu, build


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the emulated GPU."""
    return build(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def gpu(emulation: Path) -> Iterator[EmulatedGpu]:
    gpu = EmulatedGpu(emulation)
    yield gpu
    gpu.close()
