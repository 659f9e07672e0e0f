"""The two sides of a drift: what may be trained on, what streams before and after, and the tests of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medloop_services.replay.corruption import corrupt
from medloop_services.replay.dataset import Dataset
from medloop_services.replay.errors import DatasetError
from medloop_services.replay.policy import raised_bar, swapped_names
from medloop_services.replay.settings import Mix, ScenarioName, ScenarioSettings
from medloop_services.replay.split import Split, join

Shares = NDArray[np.float64]
"""(n,) how often each class is shown; sums to 1."""

USUAL_HELD_OUT = {"mednist_64": 3}
"""Data set → the class that arrives later; elsewhere it is the last one."""

TEST_SEED, ORACLE_SEED = 1, 2
"""Noise on the test and the oracle's images is not the stream's."""


@dataclass(frozen=True, slots=True)
class Domains:
    """The two sides of a drift.

    Attributes:
        class_names: after the drift, by class index; the first `known` are known before it.
        known: classes before the drift.
        training: all that pretraining may use.
        validation: for the reference and thresholds, as before the drift.
        pool_before, pool_after: what streams, under the labels it has before the drift.
        shares_before, shares_after: how often each class (by those labels) is shown.
        test: test images before the drift.
        new_test: test images after the drift.
        change: shows or labels a split as after the drift; its second argument seeds noise.
        oracle_old, oracle_new: everything labelled, before and after the drift: what the best offline
            training would have. The old is empty where its labels contradict the new or both sides are one.
    """

    class_names: tuple[str, ...]
    known: int
    training: Split
    validation: Split
    pool_before: Split
    pool_after: Split
    shares_before: Shares
    shares_after: Shares
    test: Split
    new_test: Split
    change: Callable[[Split, int], Split]
    oracle_old: Split
    oracle_new: Split


def divide_domains(dataset: Dataset, name: ScenarioName, settings: ScenarioSettings) -> Domains:
    """Return both sides of a scenario's drift.

    Raises:
        DatasetError: the images don't allow this scenario; says which do.
    """
    match name:
        case ScenarioName.DATA_DRIFT:
            return _data_drift(dataset, settings)
        case ScenarioName.CONCEPT_DRIFT:
            return _concept_drift(dataset, settings)
        case ScenarioName.NEW_CLASS:
            return _new_class(dataset, settings)
        case ScenarioName.SITE_CHANGE:
            return _site_change(dataset, settings)


def _data_drift(dataset: Dataset, settings: ScenarioSettings) -> Domains:
    def change(split: Split, seed: int) -> Split:
        seeds = (settings.seed, seed)
        return split.repainted(corrupt(split.images, settings.corruption, settings.severity, seeds))

    division = dataset.divide()
    old = join([division.training, division.pool])
    return _same_images(dataset, settings, change, old, change(old, ORACLE_SEED))


def _concept_drift(dataset: Dataset, settings: ScenarioSettings) -> Domains:
    division = dataset.divide()
    count = len(dataset.class_names)
    if count == 2:
        policy = raised_bar(division.training, settings.relabelled_share)
    else:
        policy = swapped_names(0, count // 2)

    def change(split: Split, _: int) -> Split:
        return split.relabelled(policy(split))

    # An oracle of a new policy is trained on that policy alone: the old labels contradict it.
    relabelled = change(join([division.training, division.pool]), ORACLE_SEED)
    return _same_images(dataset, settings, change, _none_of(relabelled), relabelled)


def _same_images(
    dataset: Dataset,
    settings: ScenarioSettings,
    change: Callable[[Split, int], Split],
    oracle_old: Split,
    oracle_new: Split,
) -> Domains:
    division = dataset.divide()
    shares = _shares(settings.mix, division.pool, dataset.validation, len(dataset.class_names))
    return Domains(
        class_names=dataset.class_names,
        known=len(dataset.class_names),
        training=division.training,
        validation=dataset.validation,
        pool_before=division.pool,
        pool_after=division.pool,
        shares_before=shares,
        shares_after=shares,
        test=dataset.test,
        new_test=change(dataset.test, TEST_SEED),
        change=change,
        oracle_old=oracle_old,
        oracle_new=oracle_new,
    )


def _new_class(dataset: Dataset, settings: ScenarioSettings) -> Domains:
    count = len(dataset.class_names)
    if count < 3:
        raise DatasetError(
            f"new-class needs at least 3 classes, {dataset.name} has {count}; name another file or `phantoms`"
        )
    held_out = settings.held_out
    if held_out is None:
        held_out = USUAL_HELD_OUT.get(dataset.name, count - 1)
    if held_out >= count:
        raise DatasetError(f"class {held_out} can't be held out: {dataset.name} has classes 0 to {count - 1}")
    order = [label for label in range(count) if label != held_out] + [held_out]
    place = np.argsort(order)
    known = count - 1

    def renumbered(split: Split) -> Split:
        return split.relabelled(place[split.labels])

    def without_new(split: Split) -> Split:
        return split.select(split.labels < known)

    division = dataset.divide()
    training, pool = renumbered(division.training), renumbered(division.pool)
    validation, test = without_new(renumbered(dataset.validation)), renumbered(dataset.test)
    shares = _shares(settings.mix, without_new(pool), validation, count)
    newcomer = np.eye(count)[known]
    return Domains(
        class_names=tuple(dataset.class_names[label] for label in order),
        known=known,
        training=without_new(training),
        validation=validation,
        pool_before=without_new(pool),
        pool_after=pool,
        shares_before=shares,
        shares_after=(1 - settings.new_class_share) * shares + settings.new_class_share * newcomer,
        test=without_new(test),
        new_test=test,
        change=_unchanged,
        oracle_old=_none_of(training),
        oracle_new=join([training, pool]),
    )


def _site_change(dataset: Dataset, settings: ScenarioSettings) -> Domains:
    train, validation, test = dataset.train, dataset.validation, dataset.test
    if any(split.sites is None or not {0, 1} <= set(split.sites) for split in (train, validation, test)):
        raise DatasetError(
            f"site-change needs arrays train_site, val_site and test_site that name sites 0 and 1; "
            f"{dataset.name} has none such; name another file or `phantoms`"
        )
    count = len(dataset.class_names)
    division = dataset.divide()
    pool = division.pool.at_site(0)
    elsewhere = join([train.at_site(1), validation.at_site(1)])
    return Domains(
        class_names=dataset.class_names,
        known=count,
        training=division.training.at_site(0),
        validation=validation.at_site(0),
        pool_before=pool,
        pool_after=elsewhere,
        shares_before=_shares(settings.mix, pool, validation.at_site(0), count),
        # Another site's patients are part of the change, unless an even mix is asked for.
        shares_after=_shares(settings.mix, elsewhere, elsewhere, count),
        test=test.at_site(0),
        new_test=test.at_site(1),
        change=_unchanged,
        oracle_old=train.at_site(0),
        oracle_new=elsewhere,
    )


def _none_of(split: Split) -> Split:
    return split.select(np.arange(0))


def _unchanged(split: Split, _: int) -> Split:
    return split


def _shares(mix: Mix, pool: Split, validation: Split, count: int) -> Shares:
    """How often each of `count` classes is shown; never a class that the pool lacks."""
    available = np.bincount(pool.labels, minlength=count)
    match mix:
        case Mix.VALIDATION:
            wanted = np.bincount(validation.labels, minlength=count)
        case Mix.NATURAL:
            wanted = available
        case Mix.EVEN:
            wanted = np.ones(count, np.int64)
    shown = np.where(available > 0, wanted, 0)
    if not shown.sum():
        raise DatasetError("no image is left to stream; name a file with more images a class")
    shares: Shares = shown / shown.sum()
    return shares
