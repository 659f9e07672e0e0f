"""One adaptation to learn: a model, old and new labelled images, and the tests of both domains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from drifts import COUNTS, Drift
from medloop_model.checkpoint import ModelPackage, load_package
from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD, SHALLOW_EWC
from medloop_model.training.images import usual_bounds
from medloop_services.model_choice import choose_model
from medloop_services.replay.dataset import Dataset, read_dataset
from medloop_services.replay.scenario import Stream, build_scenario
from medloop_services.replay.settings import ScenarioName, ScenarioSettings
from medloop_services.replay.split import Split
from numpy.typing import NDArray

BATCH = 16
"""Labelled images of an update, the services' default."""

REMEMBERED = 512
"""Labelled images from before the change that every method may keep, the online learner's default."""

MOST_TESTED = 624
"""Test images of a domain at most: PneumoniaMNIST's number; MedNIST has four times as many, all easy."""

STRATEGIES = {
    ScenarioName.DATA_DRIFT: SHALLOW_EWC,
    ScenarioName.SITE_CHANGE: SHALLOW_EWC,
    ScenarioName.CONCEPT_DRIFT: DISTIL_ALL,
    ScenarioName.NEW_CLASS: EXPAND_HEAD,
}

HELD_BACK_SEED = 17


@dataclass(frozen=True)
class Problem:
    """What every method is given.

    Attributes:
        drift, seed: which; the seed sets the stream's order, the noise and the learner's draws.
        package: the deployed model with its latent weights and Fisher information.
        teacher: file of its full-precision teacher.
        classes: the model's classes, then new ones.
        old: what is remembered from before the change.
        new: the labelled stream after it, in order.
        old_domains: what each of `old` comes from; empty where all come from one.
        old_test, new_test: of both domains; what the change contradicts is left out of the old.
        changed: (N,) bool over the new test: the images whose label or look the change touches.
        changed_stream: (N,) bool over `new`, likewise.
        oracle_old, oracle_new: all that offline training would have.
    """

    drift: Drift
    seed: int
    package: ModelPackage
    teacher: Path | None
    classes: tuple[str, ...]
    old: Split
    new: Split
    old_test: Split
    new_test: Split
    changed: NDArray[np.bool_]
    changed_stream: NDArray[np.bool_]
    oracle_old: Split
    oracle_new: Split
    old_domains: tuple[str, ...] = ()

    @property
    def strategy(self) -> str:
        """What the loop answers this kind of change with."""
        return STRATEGIES[self.drift.scenario]

    @property
    def slides(self) -> bool:
        """Whether the images are stained slides."""
        return usual_bounds(self.package.architecture).stained

    def batches(self) -> Iterator[Split]:
        """Return the stream after the change, one update's images at a time."""
        for start in range(0, len(self.new), BATCH):
            yield self.new.select(np.arange(start, min(start + BATCH, len(self.new))))


def problem_of(drift: Drift, seed: int, data: Path) -> Problem:
    """Return the problem of a drift and seed; the model is trained first where none is kept.

    Raises:
        DatasetError: the data folder lacks the file, or it can't be used.
    """
    return problem_from(_stream(drift, seed, data), drift, seed)


def problem_from(stream: Stream, drift: Drift, seed: int) -> Problem:
    """Return the problem that a stream poses."""
    choice = choose_model(stream, None, lambda _: None)
    before, new = _sides(stream)
    tested = _some(len(stream.new_test))
    return Problem(
        drift=drift,
        seed=seed,
        package=load_package(choice.model, parts=("packed", "latent", "fisher")),
        teacher=choice.teacher,
        classes=stream.classes_after,
        old=before.select(np.arange(len(before))[-REMEMBERED:]),
        new=new,
        old_test=stream.old_test.select(_some(len(stream.old_test))),
        new_test=stream.new_test.select(tested),
        changed=stream.changed[tested],
        changed_stream=_changed_stream(stream, new),
        oracle_old=stream.domains.oracle_old,
        oracle_new=stream.domains.oracle_new,
    )


def prepare_model(drift: Drift, data: Path) -> None:
    """Train the model that a drift starts with, where none is shipped or kept."""
    choose_model(_stream(drift, 0, data), None, lambda _: None)


def validation_problem(drift: Drift, seed: int, data: Path) -> Problem:
    """Return the same problem with validation images in the tests' place, to choose settings by.

    The old domain's are the data set's validation split. The new domain's are half of what would stream,
    held back from it; no test image is in either.
    """
    stream = _stream(drift, seed, data)
    problem = problem_of(drift, seed, data)
    _, order = np.unique(stream.domains.pool_after.studies, return_inverse=True)
    back = np.random.default_rng(HELD_BACK_SEED).random(len(order)) < 1 / 2
    held = stream.domains.pool_after.select(back)
    shown = ~np.isin(problem.new.studies, held.studies)
    held = held.select(_some(len(held)))
    new_test = stream.domains.change(held, HELD_BACK_SEED)
    old_test = stream.validation
    changed = np.ones(len(held), np.bool_)
    if drift.scenario is ScenarioName.CONCEPT_DRIFT:
        changed = new_test.labels != held.labels
        old_test = old_test.select(stream.domains.change(old_test, 0).labels == old_test.labels)
    elif drift.scenario is ScenarioName.NEW_CLASS:
        changed = held.labels >= stream.domains.known
    return replace(
        problem,
        new=problem.new.select(shown),
        changed_stream=problem.changed_stream[shown],
        old_test=old_test.select(_some(len(old_test))),
        new_test=new_test,
        changed=changed,
    )


@lru_cache(maxsize=2)
def _dataset(path: Path) -> Dataset:
    return read_dataset(path)


@lru_cache(maxsize=2)
def _stream(drift: Drift, seed: int, data: Path) -> Stream:
    settings = ScenarioSettings(
        seed=seed, images_before=REMEMBERED, images_after=COUNTS[-1], **drift.settings
    )
    return build_scenario(_dataset(data / drift.file), drift.scenario, settings)


def _sides(stream: Stream) -> tuple[Split, Split]:
    places = np.arange(len(stream.shown))
    return stream.shown.select(places[: stream.drift_at]), stream.shown.select(places[stream.drift_at :])


def _changed_stream(stream: Stream, new: Split) -> NDArray[np.bool_]:
    if stream.scenario is ScenarioName.NEW_CLASS:
        return new.labels >= stream.domains.known
    if stream.scenario is ScenarioName.CONCEPT_DRIFT:
        pool = stream.domains.pool_after
        before = dict(zip(pool.studies.tolist(), pool.labels.tolist(), strict=True))
        return np.array([before[study] for study in new.studies.tolist()]) != new.labels
    return np.ones(len(new), np.bool_)


def _some(count: int) -> NDArray[np.int64]:
    """Return at most MOST_TESTED places out of `count`, the same ones each time."""
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[:MOST_TESTED])
