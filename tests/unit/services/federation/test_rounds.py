"""The core on real updates of a real model, in a folder: no broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from federated_sites import START, Ward, public_keys, ward_of
from medloop_model import pretrained
from medloop_model.engine import Engine
from medloop_model.federation.update import shared_digest
from medloop_schemas import (
    Artifact,
    Event,
    ImageAcquired,
    InvalidEvent,
    RoundClosed,
    RoundOpened,
    UpdateSubmitted,
)
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
from medloop_services.bus.processor import KeyedProcessor
from medloop_services.federation.app import build
from medloop_services.federation.state import FederationState

SITES = ("ash", "birch", "cedar", "dogwood", "elder")


class Desk:
    """A federation in a folder, and what it has said so far."""

    def __init__(self, store: ArtifactStore, **settings: object) -> None:
        chosen = {
            "MEDLOOP_FEDERATION_SITES": public_keys(SITES),
            "MEDLOOP_FEDERATION_MODEL": pretrained.path("phantom"),
            **{f"MEDLOOP_FEDERATION_{name.upper()}": value for name, value in settings.items()},
        }
        (processor,) = build(Context(store, chosen)).processors
        assert isinstance(processor, KeyedProcessor)
        self.processor = processor
        self.state: FederationState = processor.initial("hospitals")
        self.said: list[Event] = []

    def send(self, *updates: Event) -> Sequence[Event]:
        before = len(self.said)
        for update in updates:
            self.state, outputs = self.processor.step(self.state, update)
            self.said += outputs
        return self.said[before:]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), cache=tmp_path / "cache")


@pytest.fixture
def wards(store: ArtifactStore) -> dict[str, Ward]:
    return {site: ward_of(site, store) for site in SITES}


def closings(events: Sequence[Event]) -> list[RoundClosed]:
    return [event for event in events if isinstance(event, RoundClosed)]


def test_the_first_update_opens_a_round_and_the_quorum_closes_it(
    store: ArtifactStore, wards: dict[str, Ward]
) -> None:
    desk = Desk(store, quorum=3)
    (opened,) = desk.send(wards["ash"].update())
    assert isinstance(opened, RoundOpened)
    assert (opened.number, opened.quorum, opened.closes_at) == (1, 3, START + timedelta(hours=24))
    assert desk.send(wards["birch"].update()) == []
    closed = closings(desk.send(wards["cedar"].update()))
    assert [each.site_id for each in closed] == ["ash", "birch", "cedar"]
    assert len({each.event_id for each in closed}) == 3
    first = closed[0]
    assert first.samples == {"ash": 64, "birch": 64, "cedar": 64}
    assert (first.base_sha256, first.aggregator) == (opened.base_sha256, "soft-vote")
    assert first.reason == "3 sites have sent an update, which is the quorum"
    assert desk.state.base.shared_sha256 == first.merged_sha256 != opened.base_sha256
    assert (desk.state.number, desk.state.updates, desk.state.opened) == (2, {}, None)


def test_a_site_makes_a_model_of_it_that_keeps_its_norms(
    store: ArtifactStore, wards: dict[str, Ward]
) -> None:
    desk = Desk(store, quorum=2)
    closed = closings(desk.send(wards["ash"].update(), wards["birch"].update()))[0]
    ward = wards["ash"]
    package = ward.participation.take_up(ward.trained, closed)
    assert shared_digest(package.latent) == closed.merged_sha256
    np.testing.assert_array_equal(package.latent["norm.weight"], ward.trained.latent["norm.weight"])
    side = package.architecture.image_size
    assert np.isfinite(Engine(package)(np.zeros((1, side, side), np.uint8)).logits).all()
    ward.base = package
    (opened,) = desk.send(ward.update(request="next"))
    assert isinstance(opened, RoundOpened)
    assert (opened.number, opened.base_sha256) == (2, closed.merged_sha256)


def test_time_closes_a_round_that_has_the_minimum(store: ArtifactStore, wards: dict[str, Ward]) -> None:
    desk = Desk(store, quorum=5, minimum=3, hours=1)
    late = START + timedelta(hours=1)
    assert closings(desk.send(wards["ash"].update(), wards["birch"].update(time=late))) == []
    closed = closings(desk.send(wards["cedar"].update(time=late)))
    assert set(closed[0].samples) == {"ash", "birch", "cedar"}
    assert closed[0].reason.startswith("3 of 5 sites had sent an update by")
    assert closed[0].time == late


def test_a_repeat_changes_nothing(store: ArtifactStore, wards: dict[str, Ward]) -> None:
    desk = Desk(store, quorum=2)
    updates = [wards["ash"].update(), wards["birch"].update()]
    desk.send(updates[0])
    state = desk.state
    assert desk.send(updates[0]) == []
    assert desk.state is state
    desk.send(updates[1])
    state = desk.state
    assert desk.send(*updates) == []
    assert desk.state is state


def test_a_site_counts_once_by_its_last_update(store: ArtifactStore, wards: dict[str, Ward]) -> None:
    desk = Desk(store, quorum=2)
    desk.send(wards["ash"].update(), wards["ash"].update(request="again", samples=32))
    closed = closings(desk.send(wards["birch"].update()))
    assert closed[0].samples == {"ash": 32, "birch": 64}


def test_a_stale_base_is_left_out_and_its_site_is_sent_the_last_merge(
    store: ArtifactStore, wards: dict[str, Ward]
) -> None:
    desk = Desk(store, quorum=2)
    merge = closings(desk.send(wards["ash"].update(), wards["birch"].update()))[0]
    (caught_up,) = desk.send(wards["cedar"].update())
    assert caught_up == merge.model_copy(update={"site_id": "cedar"})
    assert "the round starts from" in desk.state.refused["cedar"]
    for ward in (wards["ash"], wards["birch"]):
        ward.base = ward.participation.take_up(ward.trained, merge)
    closed = closings(desk.send(wards["ash"].update(request="next"), wards["birch"].update(request="next")))
    assert closed[0].number == 2
    assert set(closed[0].refused) == {"cedar"}


def test_the_same_updates_give_the_same_merge_in_any_order(
    store: ArtifactStore, wards: dict[str, Ward]
) -> None:
    updates = [wards[site].update() for site in SITES]
    merged = [closings(Desk(store, quorum=5).send(*order))[0].merged for order in (updates, updates[::-1])]
    assert merged[0] == merged[1]


@pytest.mark.parametrize("aggregator", ["trimmed-mean", "weighted-mean", "soft-vote"])
def test_an_update_that_is_turned_round_is_left_out_and_its_site_told_why(
    store: ArtifactStore, wards: dict[str, Ward], aggregator: str
) -> None:
    desk = Desk(store, quorum=5, aggregator=aggregator)
    honest = [wards[site].update() for site in SITES[1:]]
    told = closings(desk.send(wards["ash"].update(poison=-50.0), *honest))
    assert {closed.site_id for closed in told} == set(SITES)
    assert set(told[0].samples) == set(SITES[1:])
    assert "moves against" in told[0].refused["ash"]
    assert told[0].clipped == ()
    assert told[0].agreement["ash"] < 0 < told[0].agreement["birch"]
    assert desk.state.agreement["ash"] == (told[0].agreement["ash"],)


@pytest.mark.parametrize("aggregator", ["trimmed-mean", "weighted-mean", "soft-vote"])
def test_a_long_update_is_clipped(store: ArtifactStore, wards: dict[str, Ward], aggregator: str) -> None:
    desk = Desk(store, quorum=5, aggregator=aggregator)
    honest = [wards[site].update() for site in SITES[1:]]
    closed = closings(desk.send(wards["ash"].update(poison=50.0), *honest))[0]
    assert closed.clipped == ("ash",)
    assert closed.refused == {}


def refusal(desk: Desk, update: Event) -> tuple[str, str]:
    state = desk.state
    with pytest.raises(InvalidEvent) as refused:
        desk.send(update)
    assert desk.state is state
    assert refused.value.reason
    return refused.value.code, refused.value.field


def test_what_is_no_member_s_update_is_a_dead_letter(store: ArtifactStore, wards: dict[str, Ward]) -> None:
    desk = Desk(store)
    good = wards["ash"].update()
    assert refusal(desk, ward_of("stranger", store).update()) == ("unknown-site", "site_id")
    forged = good.model_copy(update={"site_id": "birch"})
    assert refusal(desk, forged) == ("wrong-signature", "signature")
    for field, value in {"samples": 9999, "base_sha256": "0" * 64, "attempt": 7, "federation": "x"}.items():
        assert refusal(desk, good.model_copy(update={field: value})) == ("wrong-signature", "signature")
    end_of_time = wards["ash"].update(time=datetime.max.replace(tzinfo=UTC))
    assert refusal(desk, end_of_time) == ("time", "time")
    image = ImageAcquired.model_construct(federation="hospitals")
    assert refusal(desk, image) == ("type", "")


def test_a_broken_payload_is_a_dead_letter(
    store: ArtifactStore, wards: dict[str, Ward], tmp_path: Path
) -> None:
    desk = Desk(store)
    ward = wards["ash"]

    def with_payload(payload: Artifact) -> UpdateSubmitted:
        return ward.signed(ward.update().model_copy(update={"payload": payload}))

    def stored(content: bytes) -> Artifact:
        path = tmp_path / "payload.safetensors"
        path.write_bytes(content)
        return store.put(path)

    whole = store.fetch(ward.update().payload).read_bytes()
    assert refusal(desk, with_payload(stored(b"no update"))) == ("corrupt-update", "payload")
    assert refusal(desk, with_payload(stored(whole + b"x" * 10**6))) == ("oversize-update", "payload")
    assert refusal(desk, with_payload(stored(ward.payload(infinite=True)))) == ("corrupt-update", "payload")
    assert refusal(desk, with_payload(stored(ward.payload(wider=True)))) == ("shape", "payload")
    other = ward.signed(ward.update().model_copy(update={"samples": 65}))
    assert refusal(desk, other) == ("corrupt-update", "payload")
    gone = ward.update().payload.model_copy(update={"sha256": "1" * 64})
    assert refusal(desk, with_payload(gone)) == ("artifact", "sha256")


def test_a_file_that_is_damaged_later_costs_its_site_and_not_the_round(
    store: ArtifactStore, wards: dict[str, Ward], tmp_path: Path
) -> None:
    desk = Desk(store, quorum=3)
    damaged = wards["ash"].update()
    desk.send(damaged, wards["birch"].update())
    for path in tmp_path.rglob(f"{damaged.payload.sha256}*"):
        path.write_bytes(b"damaged")
    closed = closings(desk.send(wards["cedar"].update()))
    assert set(closed[0].samples) == {"birch", "cedar"}
    assert damaged.payload.sha256 in closed[0].refused["ash"]


def test_a_merge_needs_more_than_one_site(store: ArtifactStore, wards: dict[str, Ward]) -> None:
    desk = Desk(store, quorum=3)
    much_later = datetime(2030, 1, 1, tzinfo=UTC)
    assert closings(desk.send(wards["ash"].update(), wards["ash"].update(request="b", time=much_later))) == []


def test_norms_are_shared_where_all_agree_to(store: ArtifactStore) -> None:
    wards = [ward_of(site, store) for site in SITES[:2]]
    for ward in wards:
        ward.participation = replace(ward.participation, share_norms=True)
    desk = Desk(store, quorum=2, share_norms=True)
    closed = closings(desk.send(*(ward.update() for ward in wards)))[0]
    package = wards[0].participation.take_up(wards[0].trained, closed)
    np.testing.assert_array_equal(
        package.latent["norm.weight"],
        wards[1].participation.take_up(wards[1].trained, closed).latent["norm.weight"],
    )
