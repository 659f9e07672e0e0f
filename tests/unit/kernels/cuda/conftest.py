from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated_gpu import EmulatedGpu, build
from medloop_kernels import available
from medloop_kernels.cuda.driver import Driver, open_driver

# The emulated GPU, and this machine's where it has one.
GPUS = ["emulated", *(backend.variant for backend in available() if backend.name == "cuda")]


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the emulated GPU."""
    return build(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module", params=GPUS)
def gpu(request: pytest.FixtureRequest) -> Iterator[Driver]:
    if request.param != "emulated":
        yield open_driver()
        return
    gpu = EmulatedGpu(request.getfixturevalue("emulation"))
    yield gpu
    gpu.close()
