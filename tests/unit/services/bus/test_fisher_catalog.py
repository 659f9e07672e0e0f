from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_schemas import Artifact, FisherMeasured
from medloop_services.bus.fisher_catalog import BASES_KEPT, FisherCatalog

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=30)
EVER = EPOCH + 1000 * MONTH


def measured(month: int, content: str = "a", base: str = "ward-0") -> FisherMeasured:
    return FisherMeasured(
        time=EPOCH + month * MONTH,
        base_version=base,
        base_sha256="b" * 64,
        fisher=Artifact(url=f"file:///{month}{content}", sha256=f"{month:063x}{content}", size=1),
        images=64,
        data_sha256="d" * 64,
        seed=0,
        command="medloop fisher",
    )


MONTHLY = [measured(month) for month in range(4)]


def catalog_of(*events: FisherMeasured) -> FisherCatalog:
    catalog = FisherCatalog()
    for event in events:
        catalog.apply(event)
    return catalog


def test_nothing_is_measured_of_an_unknown_version() -> None:
    assert catalog_of(*MONTHLY).measured("other", EVER) == ()


def test_the_newest_comes_first_and_the_future_not_at_all() -> None:
    catalog = catalog_of(*MONTHLY)
    assert catalog.measured("ward-0", EVER) == tuple(reversed(MONTHLY))
    assert catalog.measured("ward-0", EPOCH + 1.5 * MONTH) == (MONTHLY[1], MONTHLY[0])
    assert catalog.measured("ward-0", MONTHLY[2].time)[0] == MONTHLY[2]
    assert catalog.measured("ward-0", EPOCH - MONTH) == ()


@given(
    arrived=st.permutations([*MONTHLY, measured(2, "b")]),
    again=st.lists(st.sampled_from(MONTHLY), max_size=4),
)
def test_neither_order_nor_repeats_change_what_is_newest(
    arrived: list[FisherMeasured], again: list[FisherMeasured]
) -> None:
    found = catalog_of(*arrived, *again).measured("ward-0", EVER)
    assert found == (MONTHLY[3], measured(2, "b"), MONTHLY[2], MONTHLY[1], MONTHLY[0])


def test_versions_do_not_share_measurements() -> None:
    other = measured(9, base="ward-1")
    catalog = catalog_of(*MONTHLY, other)
    assert catalog.measured("ward-1", EVER) == (other,)
    assert other not in catalog.measured("ward-0", EVER)


def test_the_same_measurement_published_again_stays_as_old_as_it_is() -> None:
    late_repeat = MONTHLY[0].model_copy(update={"time": EVER})
    assert catalog_of(*MONTHLY, late_repeat).measured("ward-0", EVER)[0] == MONTHLY[3]


MANY = [measured(month, base=f"ward-{month}") for month in range(BASES_KEPT + 4)]


@given(arrived=st.permutations(MANY))
@settings(max_examples=10)
def test_of_many_versions_those_measured_last_are_kept_whatever_came_first(
    arrived: list[FisherMeasured],
) -> None:
    catalog = catalog_of(*arrived)
    kept = [each for each in MANY if catalog.measured(each.base_version, each.time)]
    assert kept == MANY[4:]


def test_a_released_version_outlives_newer_ones_that_nobody_serves() -> None:
    catalog = FisherCatalog(released=lambda version: version == "ward-0")
    for each in MANY:
        catalog.apply(each)
    assert catalog.measured("ward-0", EVER) == (MANY[0],)
    assert catalog.measured("ward-1", EVER) == ()
    assert catalog.measured(MANY[-1].base_version, EVER) == (MANY[-1],)
    assert sum(bool(catalog.measured(each.base_version, EVER)) for each in MANY) == BASES_KEPT


def test_only_released_versions_go_by_age_when_there_are_no_others() -> None:
    catalog = FisherCatalog(released=lambda _version: True)
    for each in MANY:
        catalog.apply(each)
    assert [each for each in MANY if not catalog.measured(each.base_version, EVER)] == MANY[:4]
