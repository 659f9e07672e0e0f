"""Sites with loops of their own and one federation between them: real models, real updates, no broker."""

from __future__ import annotations

from dataclasses import dataclass
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
from medloop_services.bus.artifacts import ArtifactStore
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

SITES = {"ash": "scanner", "birch": "contrast-down", "cedar": "gamma-up", "dogwood": "vignette"}
"""Site → what becomes of its images."""
*TOGETHER, LATE = SITES
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
            "MEDLOOP_ONLINE_LEARNER_ARTICLE": True,
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


@dataclass(frozen=True)
class Played:
    """What four hospitals did: three make up a round, and the last comes after it."""

    store: ArtifactStore
    hospitals: dict[str, Hospital]
    waiting: list[str]
    """Of the three, those that had no candidate yet when the round was closed."""
    rounds: dict[str, RoundClosed]

    def candidate(self, site: str) -> CandidateTrained:
        (candidate,) = self.hospitals[site].of(CandidateTrained)
        return candidate

    def package(self, site: str) -> ModelPackage:
        return load_package(self.store.fetch(self.candidate(site).package), parts=("latent", "reference"))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("hospitals")
    settings = {
        "MEDLOOP_FEDERATION_SITES": public_keys(SITES),
        "MEDLOOP_FEDERATION_MODEL": pretrained.path("phantom"),
        "MEDLOOP_FEDERATION_QUORUM": len(TOGETHER),
    }
    said: list[Event] = []
    federation = InProcessLoop([build_federation(Context(store_in(folder), settings))], said.append)
    hospitals = {site: Hospital(site, folder) for site in SITES}
    for site in TOGETHER:
        hospitals[site].drift()
        federation.publish(hospitals[site].of(UpdateSubmitted) * 2)
    waiting = [site for site in TOGETHER if not hospitals[site].of(CandidateTrained)]
    hospitals[LATE].drift()
    federation.publish(hospitals[LATE].of(UpdateSubmitted))
    rounds = {event.site_id: event for event in said if isinstance(event, RoundClosed)}
    for site, closed in rounds.items():
        hospitals[site].loop.publish([closed, closed])
    for loop in (federation, *(hospital.loop for hospital in hospitals.values())):
        assert loop.dead_letters == []
    return Played(store_in(folder), hospitals, waiting, rounds)


def test_a_site_waits_for_the_others(played: Played) -> None:
    assert played.waiting == list(TOGETHER)
    assert [len(hospital.of(UpdateSubmitted)) for hospital in played.hospitals.values()] == [1] * len(SITES)
    assert set(played.rounds) == set(SITES)


@pytest.mark.parametrize("site", TOGETHER)
def test_every_site_ends_with_a_candidate_of_what_all_have_learned(played: Played, site: str) -> None:
    candidate, package = played.candidate(site), played.package(site)
    others = ", ".join(each for each in TOGETHER if each != site)
    assert candidate.federated == f"merged in round 1 of {FEDERATION} with {others}"
    assert shared_digest(package.latent) == played.rounds[site].merged_sha256
    assert (package.provenance["federation"], package.provenance["round"]) == (FEDERATION, 1)
    assert package.provenance["request_id"] == candidate.request_id
    judged = played.hospitals[site].of(ReleaseChanged)[1:]
    assert {release.version for release in judged} == {candidate.version}, "as any other is"


def test_norms_and_references_are_each_site_s_own(played: Played) -> None:
    first, second, third = (played.package(site) for site in TOGETHER)
    at_home = [name for name in first.latent if stays_at_home(name)]
    for one, other in ((first, second), (second, third)):
        assert any(not np.array_equal(one.latent[name], other.latent[name]) for name in at_home)
        assert any(not np.array_equal(one.reference[name], other.reference[name]) for name in one.reference)


def test_a_site_that_comes_late_goes_on_with_its_own_model(played: Played) -> None:
    assert played.candidate(LATE).federated.startswith(f"not merged in round 1 of {FEDERATION}: ")
    assert shared_digest(played.package(LATE).latent) != played.rounds[LATE].merged_sha256
