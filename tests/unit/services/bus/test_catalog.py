from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_schemas import Artifact, ReleaseChanged, ReleaseStage, ServingStage
from medloop_services.bus.catalog import ReleaseCatalog


def release(
    number: int, version: str, stage: ReleaseStage, *devices: str, site: str = "ward"
) -> ReleaseChanged:
    return ReleaseChanged(
        time=datetime(2026, 1, 1, tzinfo=UTC),
        site_id=site,
        number=number,
        version=version,
        stage=stage,
        package=Artifact(url=f"file:///{version}", sha256="0" * 64, size=1),
        classes=("normal", "opacity"),
        devices=devices,
        reason="a test",
    )


STABLE = release(0, "one", ReleaseStage.STABLE)
CANARY = release(1, "two", ReleaseStage.CANARY, "ward/a")
PROMOTED = release(2, "two", ReleaseStage.STABLE)
ROLLED_BACK = release(2, "two", ReleaseStage.ROLLED_BACK)
REJECTED = release(1, "two", ReleaseStage.REJECTED)


def catalog_of(*changes: ReleaseChanged) -> ReleaseCatalog:
    catalog = ReleaseCatalog()
    for change in changes:
        catalog.apply(change)
    return catalog


def test_nothing_serves_before_the_first_release() -> None:
    catalog = ReleaseCatalog()
    assert catalog.serving("ward", "ward/a") is None
    assert catalog.stable("ward") is None
    assert catalog.canary("ward") is None
    assert catalog.release_of("ward", "one") is None
    assert catalog.package_of("one") is None
    assert "no model has been released" in (catalog.waiting_for() or "")


def test_a_canary_alone_serves_only_its_devices() -> None:
    catalog = catalog_of(CANARY)
    assert catalog.serving("ward", "ward/a") == (CANARY, ServingStage.CANARY)
    assert catalog.serving("ward", "ward/b") is None
    assert catalog.waiting_for() is not None


def test_a_canary_serves_its_devices_and_the_stable_version_the_others() -> None:
    catalog = catalog_of(STABLE, CANARY)
    assert catalog.waiting_for() is None
    assert catalog.canary("ward") == CANARY
    assert catalog.serving("ward", "ward/a") == (CANARY, ServingStage.CANARY)
    assert catalog.serving("ward", "ward/b") == (STABLE, ServingStage.STABLE)


@pytest.mark.parametrize(
    ("changes", "stable"),
    [
        ((STABLE, CANARY, PROMOTED), PROMOTED),
        ((STABLE, CANARY, ROLLED_BACK), STABLE),
        ((STABLE, REJECTED), STABLE),
    ],
)
def test_every_decision_ends_in_one_version_for_all(
    changes: tuple[ReleaseChanged, ...], stable: ReleaseChanged
) -> None:
    catalog = catalog_of(*changes)
    assert catalog.stable("ward") == stable
    assert catalog.canary("ward") is None
    assert catalog.serving("ward", "ward/a") == (stable, ServingStage.STABLE)
    assert catalog.release_of("ward", "two") == changes[-1]
    assert catalog.package_of("two") == changes[-1].package


@given(repeats=st.lists(st.sampled_from([STABLE, CANARY, PROMOTED]), max_size=6))
def test_repeats_and_older_decisions_change_nothing(repeats: list[ReleaseChanged]) -> None:
    catalog = catalog_of(STABLE, CANARY, PROMOTED, *repeats)
    assert catalog == catalog_of(STABLE, CANARY, PROMOTED)


def test_sites_do_not_share_decisions() -> None:
    elsewhere = release(0, "other", ReleaseStage.STABLE, site="clinic")
    catalog = catalog_of(STABLE, elsewhere)
    assert catalog.sites() == ("clinic", "ward")
    assert catalog.serving("clinic", "ward/a") == (elsewhere, ServingStage.STABLE)
    assert catalog.release_of("clinic", "other") == elsewhere
    assert catalog.release_of("ward", "other") is None
    assert catalog.package_of("other") == elsewhere.package


def test_one_version_may_be_stable_at_one_site_and_turned_down_at_another() -> None:
    turned_down = release(7, "one", ReleaseStage.REJECTED, site="clinic")
    catalog = catalog_of(STABLE, turned_down)
    assert catalog.release_of("ward", "one") == STABLE
    assert catalog.release_of("clinic", "one") == turned_down
