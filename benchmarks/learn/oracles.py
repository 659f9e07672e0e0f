"""The bounds of a problem: the model as it is, and the same network trained offline on both domains."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from drifts import Drift
from medloop_model.checkpoint import ModelPackage, load_package, save_package
from medloop_model.training import oracle
from medloop_model.training.export import export_package, network_from
from medloop_model.training.head import expand_head
from medloop_model.training.oracle import OracleSettings, train_oracle
from medloop_services.bus.cache import cache_directory
from problem import Problem, problem_of

ORACLES = 2
"""Trained a drift, on noise and with draws of their own; stream s is judged beside oracle s modulo this."""


def oracle_of(drift: Drift, seed: int, data: Path) -> ModelPackage:
    """Return the oracle that a seed is judged beside, trained once and kept in the cache by its content."""
    number = seed % ORACLES
    problem = problem_of(drift, number, data)
    settings = OracleSettings(seed=number)
    file = cache_directory() / "oracles" / f"{_key(problem, settings)}.safetensors"
    if not file.is_file():
        old, new = problem.oracle_old, problem.oracle_new
        package = train_oracle(
            problem.package, (old.images, old.labels), (new.images, new.labels), problem.classes, settings
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        save_package(package, unfinished)
        unfinished.replace(file)
    return load_package(file)


def unadapted(problem: Problem) -> ModelPackage:
    """Return the deployed model, which never answers a class that it does not know."""
    return export_package(expand_head(network_from(problem.package), problem.classes), {})


def _key(problem: Problem, settings: OracleSettings) -> str:
    digest = hashlib.sha256(json.dumps([asdict(settings), problem.classes], sort_keys=True).encode())
    digest.update(Path(oracle.__file__).read_bytes())  # trained otherwise, it is another one
    for name, tensor in sorted(problem.package.latent.items()):
        digest.update(name.encode())
        digest.update(tensor.tobytes())
    for split in (problem.oracle_old, problem.oracle_new):
        digest.update(split.images.tobytes())
        digest.update(split.labels.tobytes())
    return digest.hexdigest()[:32]
