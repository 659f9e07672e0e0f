"""The false-alarm rate: exact intervals, counts that repeat, and streams in which nothing changes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_model.statistics import Reference
from medloop_schemas import DetectorReading, ImageStatistics, Layer
from medloop_services.detecting.false_alarms import count_false_alarms, rate
from medloop_services.detecting.stationary_streams import STAY, Kind, draw_classes
from medloop_services.drift_detection.panel import Panel
from medloop_services.drift_detection.settings import DriftDetectionSettings
from scipy.stats import poisson

SHARES = np.array([0.7, 0.3])


@given(st.integers(0, 500), st.integers(1, 10**7))
def test_the_interval_is_garwoods(alarms: int, images: int) -> None:
    found = rate(Kind.IID, alarms, images)
    # At either end the count lies just in a tail of 2.5 %.
    assert poisson.cdf(alarms, images / found.low) == pytest.approx(0.025)
    if alarms:
        assert poisson.sf(alarms - 1, images / found.high) == pytest.approx(0.025)
        assert found.low < found.images_per_alarm < found.high
    else:
        assert math.isinf(found.high)


def test_a_contract_is_broken_only_where_the_interval_excludes_it() -> None:
    assert rate(Kind.IID, 0, 100).keeps(10_000)
    assert rate(Kind.IID, 8, 40_000).keeps(10_000)
    assert not rate(Kind.IID, 9, 40_000).keeps(10_000)


def test_sticky_streams_keep_their_class_and_the_shares() -> None:
    shares = np.tile(SHARES, (200_000, 1))
    classes = draw_classes(Kind.CORRELATED, shares, np.random.default_rng(0))
    assert (classes[1:] == classes[:-1]).mean() == pytest.approx(STAY, abs=0.005)
    assert (classes == 1).mean() == pytest.approx(0.3, abs=0.03)
    free = draw_classes(Kind.IID, shares, np.random.default_rng(0))
    assert (free[1:] == free[:-1]).mean() == pytest.approx(0.58, abs=0.01)


class CountingPanel:
    """Alarms once it has seen so many images, and remembers what it was shown."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.shown: list[ImageStatistics] = []

    def initial(self) -> int:
        return 0

    def after_images(self, state: int, event: object) -> int:
        images = event.images  # type: ignore[attr-defined]
        self.shown += images
        return state + len(images)

    def readings(self, state: int) -> tuple[DetectorReading, ...]:
        return (
            DetectorReading(
                detector="count",
                layer=Layer.DATA,
                statistic="images",
                value=state,
                threshold=self.patience,
                alarmed=state >= self.patience,
            ),
        )


def pool(count: int = 40) -> list[ImageStatistics]:
    return [
        ImageStatistics(
            image_id=f"pool-{n}",
            sequence=0,
            predicted_class=n % 2,
            data={"which": float(n)},
            decision={},
            activation={},
            embedding=(0.0,),
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("kind", list(Kind))
def test_detectors_start_afresh_after_an_alarm(kind: Kind) -> None:
    panel = CountingPanel(64)
    done: list[int] = []
    found = count_false_alarms(
        panel,  # type: ignore[arg-type]
        pool(),
        np.arange(40) % 2,
        SHARES,
        kind,
        images=6_400,
        seed=0,
        advance=done.append,
    )
    assert (found.alarms, found.images, found.images_per_alarm) == (100, 6_400, 64)
    assert sum(done) == 6_400
    assert [image.sequence for image in panel.shown] == list(range(6_400))
    assert len({image.image_id for image in panel.shown}) == 6_400


def test_the_same_seed_draws_the_same_stream() -> None:
    shown = []
    for seed in (3, 3, 4):
        panel = CountingPanel(10**6)
        count_false_alarms(
            panel,  # type: ignore[arg-type]
            pool(),
            np.arange(40) % 2,
            SHARES,
            Kind.IID,
            images=320,
            seed=seed,
        )
        shown.append([image.data["which"] for image in panel.shown])
    assert shown[0] == shown[1] != shown[2]


def test_a_calibrated_panel_alarms_on_images_that_calibration_did_not_know(
    reference: Reference, held_out: Callable[[float], list[ImageStatistics]]
) -> None:
    panel = Panel.calibrated(reference, DriftDetectionSettings())

    def alarms(shift: float) -> int:
        images = held_out(shift)
        labels = np.array([image.predicted_class for image in images])
        return count_false_alarms(panel, images, labels, SHARES, Kind.IID, images=1_600, seed=0).alarms

    assert alarms(0.0) <= 3
    assert alarms(3.0) > 10
