"""Three sites with loops of their own and one federation between them: real models, real updates, no broker."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from federated_sites import key_of, public_keys
from medloop_model import pretrained
from medloop_model.checkpoint import ModelPackage, load_package
from medloop_model.federation.update import shared_digest, stays_at_home
from medloop_schemas import (
    AdaptationRequested,
    CandidateTrained,
    Diagnosis,
    Event,
    ReleaseChanged,
    RoundClosed,
    Strategy,
    UpdateSubmitted,
)
from medloop_services.bus.context import Context
from medloop_services.federation.app import build as build_federation
from medloop_services.inference.app import build as build_inference
from medloop_services.loop import InProcessLoop
from medloop_services.online_learner.app import build as build_online_learner
from medloop_services.publisher.app import build as build_publisher
from medloop_services.replay.dataset import draw_dataset
from medloop_services.replay.scenario import Stream, build_scenario
from medloop_services.replay.settings import ScenarioSettings
from recorded_loop import SETTINGS, store_in

SITES = {"ash": "scanner", "birch": "contrast-down", "cedar": "gamma-up"}
"""Site → what becomes of its images."""
IMAGES_BEFORE = 64
FEDERATION = "hospitals"

Kind = TypeVar("Kind", bound=Event)


class Hospital:
    """A site without its monitoring: that it has drifted is told it by hand."""

    def __init__(self, site: str, folder: Path) -> None:
        self.site = site
        wanted = ScenarioSettings(
            site=site,
            seed=sorted(SITES).index(site),
            images_before=IMAGES_BEFORE,
            images_after=IMAGES_BEFORE,
            devices=1,
            label_delay=0,
            corruption=SITES[site],
        )
        self.stream: Stream = build_scenario(draw_dataset(), "data-drift", wanted)
        key = folder / f"{site}.pem"
        key.write_bytes(key_of(site).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        settings = {
            **SETTINGS,
            "MEDLOOP_PUBLISHER_SITES": site,
            "MEDLOOP_ONLINE_LEARNER_FEDERATION": FEDERATION,
            "MEDLOOP_ONLINE_LEARNER_FEDERATION_KEY": key,
        }
        context = Context(store_in(folder), settings)
        builds = (build_publisher, build_inference, build_online_learner)
        self.seen: list[Event] = []
        self.loop = InProcessLoop([build(context) for build in builds], self.seen.append)

    def drift(self) -> None:
        """Take in the whole stream, and be asked to adapt after it."""
        self.loop.publish(self.stream.events())
        (release,) = self.of(ReleaseChanged)
        request = AdaptationRequested(
            time=release.time,
            site_id=self.site,
            diagnosis=Diagnosis.DATA_DRIFT,
            strategy=Strategy.SHALLOW_EWC,
            base_version=release.version,
            onset={self.stream.devices[0]: IMAGES_BEFORE},
            detector="mmd",
            evidence=("a test",),
        )
        self.loop.publish([request])

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.seen if isinstance(event, kind)]


def joined(folder: Path, quorum: int) -> tuple[list[Hospital], InProcessLoop, list[Event]]:
    hospitals = [Hospital(site, folder) for site in SITES]
    settings = {
        "MEDLOOP_FEDERATION_SITES": public_keys(SITES),
        "MEDLOOP_FEDERATION_MODEL": pretrained.path("phantom"),
        "MEDLOOP_FEDERATION_QUORUM": quorum,
    }
    said: list[Event] = []
    federation = InProcessLoop([build_federation(Context(store_in(folder), settings))], said.append)
    return hospitals, federation, said


def test_three_sites_end_with_a_merged_candidate_each(tmp_path: Path) -> None:
    hospitals, federation, said = joined(tmp_path, quorum=3)
    for hospital in hospitals:
        hospital.drift()
        assert hospital.of(CandidateTrained) == [], "it waits for the others"
        federation.publish(hospital.of(UpdateSubmitted) * 2)
    assert federation.dead_letters == []
    rounds = {event.site_id: event for event in said if isinstance(event, RoundClosed)}
    assert set(rounds) == set(SITES)

    store = store_in(tmp_path)
    packages: list[ModelPackage] = []
    for hospital in hospitals:
        closed = rounds[hospital.site]
        hospital.loop.publish([closed, closed])
        assert hospital.loop.dead_letters == []
        (candidate,) = hospital.of(CandidateTrained)
        others = ", ".join(sorted(set(SITES) - {hospital.site}))
        assert candidate.federated == f"merged in round 1 of {FEDERATION} with {others}"
        package = load_package(store.fetch(candidate.package), parts=("latent", "reference"))
        assert shared_digest(package.latent) == closed.merged_sha256
        assert (package.provenance["round"], package.provenance["federation"]) == (1, FEDERATION)
        assert package.provenance["request_id"] == candidate.request_id
        packages.append(package)
        judged = [release.version for release in hospital.of(ReleaseChanged)[1:]]
        assert judged[:1] == [candidate.version], "the publisher judges it like any other"
    first, second, _ = packages
    assert any(
        not np.array_equal(first.latent[name], second.latent[name])
        for name in first.latent
        if stays_at_home(name)
    ), "norms and scales are each site's own"
    assert any(not np.array_equal(first.reference[name], second.reference[name]) for name in first.reference)


@pytest.mark.parametrize("late", [0, 1])
def test_a_site_that_comes_late_goes_on_with_its_own_model(tmp_path: Path, late: int) -> None:
    hospitals, federation, said = joined(tmp_path, quorum=2)
    straggler = hospitals.pop(late)
    for hospital in [*hospitals, straggler]:
        hospital.drift()
        federation.publish(hospital.of(UpdateSubmitted))
    last = said[-1]
    assert isinstance(last, RoundClosed)
    assert last.site_id == straggler.site
    straggler.loop.publish([last])
    (candidate,) = straggler.of(CandidateTrained)
    assert candidate.federated.startswith(f"not merged in round 1 of {FEDERATION}: ")
    package = load_package(store_in(tmp_path).fetch(candidate.package), parts=("latent",))
    assert shared_digest(package.latent) != last.merged_sha256
