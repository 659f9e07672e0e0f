"""Which model a stream starts with: a named one, a shipped one trained for it, or one trained now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from medloop_model import pretrained
from medloop_model.checkpoint import load_package
from medloop_model.training.pretraining import RECIPE, PretrainSettings

from medloop_services.bus.cache import cache_directory
from medloop_services.pretraining import (
    MODEL_FILE,
    TEACHER_FILE,
    Home,
    Progress,
    pretrain_model,
    training_digest,
)
from medloop_services.replay.scenario import Stream

ON_DEMAND = PretrainSettings(teacher_steps=150, student_steps=200, batch_size=48, threads=2)
"""How a model is trained while somebody waits: a minute or two, one point below `medloop pretrain`'s."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The files of the model that a stream starts with, and where it is from, in one line."""

    model: Path
    teacher: Path | None
    source: str


def home_of(stream: Stream) -> Home:
    """Return what a stream's model is pretrained for: everything before the drift that never streams."""
    return Home(
        data=stream.dataset.name,
        digest=stream.dataset.digest,
        class_names=stream.classes_before,
        training=stream.training_part,
        validation=stream.validation,
        test=stream.before_test,
    )


def choose_model(
    stream: Stream, named: Path | None, announce: Callable[[str], None], progress: Progress | None = None
) -> ModelChoice:
    """Return the named model, else a shipped or cached one trained on just this stream's training part.

    Where there is none it is trained, which takes a few minutes, and kept in the user's cache.

    Raises:
        ModelError: the named file can't be used.
    """
    choice = _named(named) if named else _shipped(stream) or _trained(stream, announce, progress)
    announce(f"model: {choice.source}")
    return choice


def _named(path: Path) -> ModelChoice:
    model = path / MODEL_FILE if path.is_dir() else path
    load_package(model)
    teacher = model.with_name(TEACHER_FILE)
    return ModelChoice(model, teacher if teacher.is_file() else None, f"{model}")


def _shipped(stream: Stream) -> ModelChoice | None:
    wanted = training_digest(stream.training_part)
    for name in pretrained.NAMES:
        path = pretrained.path(name)
        if load_package(path).provenance.get("training_sha256") == wanted:
            return ModelChoice(path, pretrained.teacher_path(name), f"ships with medloop ({name})")
    return None


def _trained(stream: Stream, announce: Callable[[str], None], progress: Progress | None) -> ModelChoice:
    home = home_of(stream)
    recipe = [training_digest(home.training), home.architecture.to_json(), asdict(ON_DEMAND), RECIPE]
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_directory() / "models" / f"{home.data}-{key}"
    source = f"trained here on {home.data}, kept in {folder}"
    if not (folder / TEACHER_FILE).is_file():  # written last
        announce(f"no model ships for {home.data} as {stream.scenario} needs it: training one")
        pretrain_model(
            home,
            folder,
            name=home.data.replace("_", "-"),
            settings=ON_DEMAND,
            command=f"medloop {stream.scenario} --data {home.data}",
            progress=progress,
        )
    return ModelChoice(folder / MODEL_FILE, folder / TEACHER_FILE, source)
