"""The e-detector: its definition, its martingale on every stream there can be, its run length."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from medloop_schemas import Layer
from medloop_services.drift_detection.detectors.detector import Channels, Images
from medloop_services.drift_detection.detectors.e_process import BETS, EProcess
from numpy.typing import NDArray

NAMES = (
    "data.noise",
    "data.intensity",
    "decision.entropy",
    "activation.block0.mean",
    "activation.block0.dead",
)
LAYERS = (Layer.DATA, Layer.ACTIVATION, Layer.FEATURE)

Values = NDArray[np.float64]


def shown(values: Values) -> Images:
    """Streams whose watched scalars and two components are (s, b, 5); entropy runs away, dead units stay."""
    streams, images, _ = values.shape
    entropy = np.full((streams, images, 1), 99.0)
    scores = np.concatenate([values[..., :2], entropy, values[..., 2:3], np.zeros((streams, images, 1))], 2)
    return Images(scores, values[..., 3:], np.full((streams, images, 2), 0.5))


def dependent(seed: int, images: int, shift: float = 0.0) -> Values:
    """(images, 5), of which the second repeats the first and the fourth has ties."""
    values = np.random.default_rng(seed).normal(shift, 1, (images, 5))
    values[:, 1], values[:, 3] = values[:, 0], values[:, 3].round()
    return values


def fitted(reference: Values, tolerance: float = 0.0) -> EProcess:
    return EProcess.fitted(Channels.named(NAMES), shown(reference[np.newaxis]), tolerance)


def evidence(detector: EProcess, stakes: Values) -> Values:
    """M, (s, 3)."""
    return np.expm1(detector.statistics({"stakes": stakes}, shown(np.zeros((len(stakes), 0, 5)))))


def tilted(values: int, off: float) -> Values:
    """Chances of so many values whose mean rank is ½ + off."""
    ranks = (np.arange(values) + 0.5) / values
    return (1 + off / ranks.var() * (ranks - 0.5)) / values


def run_lengths(detector: EProcess, streams: Values, levels: list[float]) -> list[Values]:
    """Images until any layer is at each level, (s,); the streams' length where none ever is."""
    memory = detector.start(len(streams))
    lengths = [np.full(len(streams), float(streams.shape[1])) for _ in levels]
    for image in range(streams.shape[1]):
        memory = detector.advance(memory, shown(streams[:, image : image + 1]))
        largest = evidence(detector, memory["stakes"]).max(1)
        for level, length in zip(levels, lengths, strict=True):
            length[(largest >= level) & (length > image + 1)] = image + 1
    return lengths


def test_it_bets_on_all_layers_but_the_decision_and_on_no_scalar_that_stays() -> None:
    detector = fitted(dependent(0, 50))
    assert detector.channels.layers == LAYERS
    assert detector.columns == (0, 1, 3)
    assert detector.layer_of.tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("tolerance", [0.0, 0.05])
@pytest.mark.parametrize("size", [1, 7, 40])
def test_it_is_the_mean_over_bets_and_scalars_of_what_every_beginning_has_won(
    size: int, tolerance: float
) -> None:
    reference, stream = dependent(1, 30), dependent(2, 40, 0.3)
    detector = fitted(reference, tolerance)
    memory = detector.start(1)
    for start in range(0, 40, size):
        memory = detector.advance(memory, shown(stream[np.newaxis, start : start + size]))
    won = np.zeros(5)
    for column, share, sign in itertools.product(range(5), BETS, (1, -1)):
        known, bet = reference[:, column], share / (0.5 + tolerance)
        ranks = [(known < x).mean() + (known == x).mean() / 2 for x in stream[:, column]]
        factors = [1 + bet * (sign * (rank - 0.5) - tolerance) for rank in ranks]
        won[column] += sum(np.prod(factors[beginning:]) for beginning in range(40)) / 6
    expected = [won[:2].mean(), won[2], won[3:].mean()]
    assert evidence(detector, memory["stakes"])[0] == pytest.approx(expected)


def test_over_all_streams_of_reference_images_the_mean_evidence_is_the_number_of_images() -> None:
    """M_t − t is a martingale: not on average over some, but over 5⁴ streams as likely as each other."""
    reference = dependent(3, 5)
    rows = np.array(list(itertools.product(range(5), repeat=4)))
    detector = fitted(reference)
    memory = detector.start(len(rows))
    for image in range(4):
        memory = detector.advance(memory, shown(reference[rows[:, image : image + 1]]))
        np.testing.assert_allclose(evidence(detector, memory["stakes"]).mean(0), image + 1)


@pytest.mark.parametrize("side", [1, -1])
def test_at_the_edge_of_the_null_bets_to_that_side_are_fair_and_the_others_lose(side: int) -> None:
    reference, chances = np.tile(np.arange(5.0)[:, np.newaxis], 5), tilted(5, 0.05 * side)
    rows = np.array(list(itertools.product(range(5), repeat=4)))
    detector = fitted(reference, tolerance=0.05)
    memory = detector.advance(detector.start(len(rows)), shown(reference[rows]))
    means = np.einsum("s,sjv->jv", chances[rows].prod(1), memory["stakes"])
    high, low = means[: len(BETS)], means[len(BETS) :]
    np.testing.assert_allclose(high if side == 1 else low, 4)
    assert (low < 4).all() if side == 1 else (high < 4).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_the_run_length_without_a_change_is_at_least_the_level(seed: int, tolerance: float) -> None:
    """Three layers: E N ≥ c / 3 until the first of them. What runs on at the end counts as ended there."""
    reference = dependent(10 + seed, 40)
    rows = np.random.default_rng(seed).integers(0, 40, (300, 1_000))
    levels = [30.0, 100.0, 300.0]
    found = run_lengths(fitted(reference, tolerance), reference[rows], levels)
    for level, lengths in zip(levels, found, strict=True):
        assert lengths.mean() >= level / 3


def test_the_run_length_at_the_edge_of_the_null_is_at_least_the_level() -> None:
    reference, chances = np.tile(np.arange(40.0)[:, np.newaxis], 5), tilted(40, 0.05)
    rows = np.random.default_rng(9).choice(40, (300, 1_000), p=chances)
    found = run_lengths(fitted(reference, tolerance=0.05), reference[rows], [30.0, 100.0, 300.0])
    for level, lengths in zip([30.0, 100.0, 300.0], found, strict=True):
        assert lengths.mean() >= level  # all layers are the same: one alone


def test_one_layer_alone_runs_for_the_level_and_not_for_very_much_longer() -> None:
    """Without a bound from above, a detector that never alarms would pass for valid."""
    reference = dependent(20, 40)
    detector = fitted(reference)
    rows = np.random.default_rng(21).integers(0, 40, (300, 1_000))
    memory, lengths = detector.start(300), np.full((300, 3), 1_000.0)
    for image in range(1_000):
        memory = detector.advance(memory, shown(reference[rows[:, image : image + 1]]))
        ended = (evidence(detector, memory["stakes"]) >= 100.0) & (lengths > image + 1)
        lengths[ended] = image + 1
    assert (lengths.mean(0) >= 100).all()
    assert (lengths.mean(0) <= 500).all()


def test_after_a_shift_it_is_there_soon() -> None:
    detector = fitted(dependent(22, 200))
    streams = np.random.default_rng(23).normal(1.0, 1, (100, 200, 5))
    (lengths,) = run_lengths(detector, streams, [5_000.0])
    assert lengths.mean() < 40


def test_its_stakes_stop_above_the_threshold_so_that_an_alarm_can_end() -> None:
    detector = replace(fitted(dependent(24, 200)), thresholds=np.full(3, 8.0))
    stream = np.concatenate([dependent(25, 300, 2.0), dependent(26, 64)])[np.newaxis]
    memory = detector.advance(detector.start(1), shown(stream[:, :300]))
    np.testing.assert_allclose(detector.statistics(memory, shown(stream)), 8.5)
    memory = detector.advance(memory, shown(stream[:, 300:]))
    assert (detector.statistics(memory, shown(stream)) < 8.0).all()


@pytest.mark.parametrize("channel", range(3))
def test_it_dates_a_change_by_the_beginning_that_would_have_won_most(channel: int) -> None:
    """On average a little early: the bet that won most was lucky before the change, too."""
    detector, found = fitted(dependent(29, 300), tolerance=0.05), []
    for seed in range(20):
        stream = np.concatenate([dependent(40 + seed, 70), dependent(60 + seed, 30, 2.5)])[np.newaxis]
        memory = detector.advance(detector.start(1), shown(stream))
        found.append(detector.images_since(memory, shown(stream), channel))
    assert np.median(found) == pytest.approx(31, abs=3)
