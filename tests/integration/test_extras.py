"""A service's extra, installed alone, is all that it needs; only what trains or merges brings torch."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
MEMBERS = ("schemas", "kernels", "model", "services")
QUICK = "inference"
WITH_TORCH = {"online_learner", "federation"}
NAMES = sorted(point.name for point in importlib.metadata.entry_points(group="medloop.services"))

BUILD = """
import importlib.util, json, sys
from importlib.metadata import entry_points
import medloop_services.bus.runner, medloop_services.cli
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
(point,) = entry_points(group="medloop.services", name=sys.argv[1])
service = point.load()(Context(ArtifactStore(sys.argv[2])))
print(json.dumps({
    "name": service.name,
    "processors": [processor.name for processor in service.processors],
    "torch_imported": "torch" in sys.modules,
    "torch_installed": importlib.util.find_spec("torch") is not None,
}))
"""
"""Builds a service as `medloop service NAME` does, and says what that took."""


def each_service() -> list[object]:
    """One service is always tried; the others, which download more, where slow tests run."""
    return [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every member's wheel, by distribution, built from a copy: building writes into the source folder."""
    folder = tmp_path_factory.mktemp("wheels")
    for member in MEMBERS:
        source = tmp_path_factory.mktemp("source") / member
        left_out = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "*.so")
        shutil.copytree(ROOT / member, source, ignore=left_out)
        uv(
            "build",
            "--wheel",
            "--no-build-isolation",
            "--python",
            sys.executable,
            "--out-dir",
            folder,
            source,
        )
    return {path.name.split("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}


@pytest.mark.parametrize("name", each_service())
def test_a_service_can_be_built_with_its_extra_alone(
    name: str, wheels: dict[str, Path], tmp_path: Path
) -> None:
    python = install(name.replace("_", "-"), wheels, tmp_path / "venv")
    ran = subprocess.run(
        [python, "-I", "-c", BUILD, name, str(tmp_path / "artifacts")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "MEDLOOP_CACHE": str(tmp_path / "cache")},
    )
    assert ran.returncode == 0, ran.stderr
    built = json.loads(ran.stdout)
    assert built["name"] == name
    assert built["processors"]
    assert built["torch_imported"] == built["torch_installed"] == (name in WITH_TORCH)
    assert ("torch" in distributions(python)) == (name in WITH_TORCH)


def install(extra: str, wheels: dict[str, Path], folder: Path) -> Path:
    """Return the python of a new environment with one extra in the locked versions, and nothing else.

    Members are given as files: left to be found, a stranger's package of the same name could be.
    """
    python = folder / "bin" / "python"
    uv("venv", "--python", sys.executable, folder)
    wanted = [
        f"{name}[{extra}] @ {wheel.as_uri()}" if name == "medloop-services" else f"{name} @ {wheel.as_uri()}"
        for name, wheel in wheels.items()
    ]
    uv("pip", "install", "--python", python, "--constraint", ROOT / "requirements.lock", *wanted)
    return python


def distributions(python: Path) -> set[str]:
    """Return the names of what is installed beside a python."""
    listed = json.loads(uv("pip", "list", "--python", python, "--format", "json"))
    return {each["name"] for each in listed}


def uv(command: str, *arguments: str | Path) -> str:
    # Hospitals inspect TLS: trust the system's certificate store, under uv's new and old name for it.
    certificates = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "uv", "--quiet", command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, **certificates},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
