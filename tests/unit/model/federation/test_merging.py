from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from medloop_model import pretrained
from medloop_model.checkpoint import ModelPackage, load_package
from medloop_model.engine import Engine
from medloop_model.errors import UnsupportedArchitecture
from medloop_model.federation.aggregators import Aggregator
from medloop_model.federation.errors import CorruptUpdate
from medloop_model.federation.merging import MergeSettings, merge, with_merged
from medloop_model.federation.update import (
    Update,
    difference,
    require_finite,
    shared,
    shared_digest,
    stays_at_home,
)
from medloop_model.training.ewc import MOST_FISHER


@pytest.fixture(scope="module")
def home() -> ModelPackage:
    return load_package(pretrained.path("phantom"), parts=("packed", "latent", "fisher"))


def moved(home: ModelPackage, seed: int, scale: float = 1e-3) -> ModelPackage:
    draw = np.random.default_rng(seed)
    latent = {
        name: (tensor + draw.normal(0, scale, tensor.shape)).astype(np.float16)
        for name, tensor in home.latent.items()
    }
    return replace(home, latent=latent)


def updates(home: ModelPackage, count: int) -> list[Update]:
    return [difference(home, moved(home, seed), samples=10 * (seed + 1)) for seed in range(count)]


@pytest.mark.parametrize("aggregator", [Aggregator.WEIGHTED_MEAN, Aggregator.TRIMMED_MEAN])
def test_sites_that_learned_the_same_get_just_that(home: ModelPackage, aggregator: Aggregator) -> None:
    trained = moved(home, 1)
    merged = merge(home, [difference(home, trained, samples=5)] * 5, MergeSettings(aggregator))
    for name, weight in shared(trained.latent).items():
        np.testing.assert_allclose(merged.latent[name], weight, rtol=1e-3, atol=1e-6)
    assert merged.clipped == (False,) * 5


@pytest.mark.parametrize("aggregator", Aggregator)
def test_a_merged_model_runs_with_its_sites_own_norms(home: ModelPackage, aggregator: Aggregator) -> None:
    merged = merge(home, updates(home, 4), MergeSettings(aggregator))
    own = moved(home, 0)
    package = with_merged(own, merged, {"round": 1})
    assert shared_digest(package.latent) == shared_digest(merged.latent)
    for name in home.latent:
        if stays_at_home(name):
            np.testing.assert_array_equal(package.latent[name], own.latent[name])
    side = package.architecture.image_size
    images = np.random.default_rng(0).integers(0, 255, (3, side, side), dtype=np.uint8)
    assert np.isfinite(Engine(package)(images).logits).all()
    assert package.provenance == {"round": 1}


def test_unless_they_are_shared_too(home: ModelPackage) -> None:
    settings = MergeSettings(Aggregator.WEIGHTED_MEAN, norms=True)
    trained = moved(home, 1)
    merged = merge(home, [difference(home, trained, 1, norms=True)], settings)
    package = with_merged(home, merged, {})
    np.testing.assert_allclose(package.latent["norm.weight"], trained.latent["norm.weight"], rtol=1e-3)


def test_a_long_update_is_clipped_by_the_rounds_median(home: ModelPackage) -> None:
    honest = updates(home, 4)
    long = replace(honest[0], deltas={name: -50 * delta for name, delta in honest[0].deltas.items()})
    merged = merge(home, [*honest, long], MergeSettings(Aggregator.WEIGHTED_MEAN))
    assert merged.clipped == (False, False, False, False, True)


@pytest.mark.parametrize("aggregator", Aggregator)
def test_who_moves_against_the_others_has_no_word(home: ModelPackage, aggregator: Aggregator) -> None:
    common = moved(home, 7, scale=2e-3)
    honest = [difference(home, moved(common, seed), samples=10 * (seed + 1)) for seed in range(4)]
    cheat = replace(honest[0], deltas={name: -10 * delta for name, delta in honest[3].deltas.items()})
    settings = MergeSettings(aggregator)
    merged = merge(home, [honest[0], cheat, *honest[1:]], settings)
    assert merged.opposed == (False, True, False, False, False)
    assert merged.agreement[1] < -0.1 < 0.1 < min(merged.agreement[:1] + merged.agreement[2:])
    assert merged.clipped == (False,) * 5
    for name, weight in merge(home, honest, settings).latent.items():
        np.testing.assert_array_equal(merged.latent[name], weight)


def test_what_a_site_did_before_counts_too(home: ModelPackage) -> None:
    common = moved(home, 7, scale=2e-3)
    some = [difference(home, moved(common, seed), samples=10) for seed in range(4)]
    merged = merge(home, some, MergeSettings(), earlier=[(), (0.2,), (-0.9, -0.9), (0.1, 0.1)])
    assert merged.opposed == (False, False, True, False)


def test_no_site_counts_for_more_images_than_it_may(home: ModelPackage) -> None:
    one, other = updates(home, 2)
    settings = MergeSettings(Aggregator.WEIGHTED_MEAN, most_samples=100)
    boasting = merge(home, [replace(one, samples=10**12), replace(other, samples=100)], settings)
    even = merge(home, [replace(one, samples=100), replace(other, samples=100)], settings)
    for name, weight in even.latent.items():
        np.testing.assert_array_equal(boasting.latent[name], weight)


@pytest.mark.parametrize("aggregator", [Aggregator.WEIGHTED_MEAN, Aggregator.SOFT_VOTE])
def test_who_boasts_of_images_counts_little_more_than_the_others(
    home: ModelPackage, aggregator: Aggregator
) -> None:
    honest = [replace(update, samples=64) for update in updates(home, 4)]
    liar = difference(home, moved(home, 9), samples=4096)
    boasting = merge(home, [*honest, liar], MergeSettings(aggregator))
    modest = merge(home, [*honest, replace(liar, samples=96)], MergeSettings(aggregator))
    for name, weight in modest.latent.items():
        np.testing.assert_array_equal(boasting.latent[name], weight)


def test_fisher_information_is_merged_by_weight(home: ModelPackage) -> None:
    one, other = updates(home, 2)
    merged = merge(home, [one, other], MergeSettings())
    name = "head.weight"
    expected = (one.samples * one.fisher[name] + other.samples * other.fisher[name]) / (
        one.samples + other.samples
    )
    np.testing.assert_allclose(merged.fisher[name], expected, rtol=1e-2, atol=1e-3)
    assert merge(home, [one, replace(other, fisher={})], MergeSettings()).fisher == {}


def test_no_site_nails_a_weight_down_for_the_others(home: ModelPackage) -> None:
    one, other = updates(home, 2)
    huge = {name: np.full_like(values, 1e30) for name, values in one.fisher.items()}
    merged = merge(home, [replace(one, fisher=huge), other], MergeSettings())
    assert max(values.max() for values in merged.fisher.values()) <= MOST_FISHER


def test_weights_of_another_network_are_refused(home: ModelPackage) -> None:
    merged = merge(home, updates(home, 1), MergeSettings())
    wrong = replace(merged, latent={**merged.latent, "head.bias": np.zeros(9, np.float16)})
    with pytest.raises(UnsupportedArchitecture):
        with_merged(home, wrong, {})


def test_of_two_sites_neither_runs_away_with_the_weights(home: ModelPackage) -> None:
    honest = difference(home, moved(home, 0), samples=100)
    huge = replace(honest, deltas={name: 1e7 * delta for name, delta in honest.deltas.items()}, samples=10**9)
    merged = merge(home, [honest, huge], MergeSettings(Aggregator.WEIGHTED_MEAN))
    for name, before in shared(home.latent).items():
        way = np.abs(merged.latent[name] - before.astype(np.float32))
        assert way.max() <= MergeSettings().clip * 2 * np.abs(honest.deltas[name]).max() + 1e-3
    assert merged.clipped == (False, True)


def test_what_no_file_can_hold_is_refused(home: ModelPackage) -> None:
    update = difference(home, moved(home, 0), samples=1)
    for number in (np.nan, np.inf, 1e6):
        wrong = {name: np.full_like(delta, number) for name, delta in update.deltas.items()}
        with pytest.raises(CorruptUpdate):
            require_finite(replace(update, deltas=wrong))


def test_a_part_of_fisher_information_is_none(home: ModelPackage) -> None:
    merged = merge(home, updates(home, 2), MergeSettings())
    assert with_merged(replace(home, fisher={}), merged, {}).fisher == {}
    assert with_merged(home, merged, {}).fisher.keys() == home.latent.keys()
