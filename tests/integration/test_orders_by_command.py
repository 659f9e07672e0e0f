"""`medloop release show|reject|rollback` against a publisher on a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from killable_service import Killable
from medloop_model import pretrained
from medloop_schemas import CandidateTrained, Diagnosis, ReleaseChanged, Strategy, topic_of
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.broker import EmbeddedBroker
from medloop_services.bus.health import Health
from medloop_services.bus.outgoing import Outgoing, outgoing
from medloop_services.bus.sender import Sender
from medloop_services.bus.settings import BusSettings
from medloop_services.publisher.audit import AuditChain, Decision

pytestmark = pytest.mark.integration

SITE, OTHER_SITE = "orders", "orders-of-others"
CANDIDATE = "phantom-candidate"


async def sent(settings: BusSettings, record: Outgoing) -> None:
    sender = Sender(settings, Health(), "test")
    await sender.deliver([record])
    await sender.stop()


@pytest.fixture(scope="module")
def first_version(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A publisher whose sites have one release, and a candidate that waits at the gate for images."""
    folder = tmp_path_factory.mktemp("orders")
    settings = BusSettings(kafka=broker.bootstrap, artifacts=str(folder / "artifacts"))
    model = pretrained.path("phantom")
    package = ArtifactStore(settings.artifacts).put(model)
    first = f"ward-{package.sha256[:12]}"
    waiting = CandidateTrained(
        time=datetime(2026, 1, 1, tzinfo=UTC),
        site_id=SITE,
        request_id="request",
        attempt=1,
        version=CANDIDATE,
        base_version=first,
        package=package,
        diagnosis=Diagnosis.DATA_DRIFT,
        strategy=Strategy.SHALLOW_EWC,
        onset={"orders/scanner-1": 0},
        classes=("normal", "opacity"),
        labels_used=256,
        updates=96,
        changed_codes=0.01,
        loss_first=1.0,
        loss_last=0.5,
    )

    chosen = {"MEDLOOP_PUBLISHER_SITES": f"{SITE},{OTHER_SITE}", "MEDLOOP_PUBLISHER_MODEL": str(model)}
    publisher = Killable("publisher", settings, folder, chosen)
    try:
        while publisher.followed() < 2:
            assert publisher.process.poll() is None, publisher.log.read_text()
            time.sleep(0.1)
        asyncio.run(sent(settings, outgoing(waiting, "/test")))
        yield first
    finally:
        assert publisher.stop() == 0


def medloop(broker: EmbeddedBroker, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medloop_services.cli", *map(str, arguments)],
        env={**os.environ, "MEDLOOP_KAFKA": broker.bootstrap, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def order(
    broker: EmbeddedBroker, wanted: str, version: str, site: str = SITE
) -> subprocess.CompletedProcess[str]:
    said = ("--reason", "seen by the board", "--by", "a.physicist", "--site", site)
    return medloop(broker, "release", wanted, version, *said)


def test_what_waits_is_rejected_by_a_person_and_on_record(
    broker: EmbeddedBroker, first_version: str, tmp_path: Path
) -> None:
    ran = order(broker, "reject", CANDIDATE)
    assert ran.returncode == 0, ran.stderr
    assert "rejected by a.physicist" in ran.stderr
    shown = medloop(broker, "release", "show", CANDIDATE, "--json", tmp_path / "shown.json")
    assert f"trained from {first_version} for data-drift" in shown.stdout
    assert f"rejected at {SITE} by a.physicist: seen by the board" in shown.stdout
    trained, released, recorded = json.loads((tmp_path / "shown.json").read_bytes())
    assert (trained["labels_used"], released["stage"]) == (256, "rejected")
    assert (recorded["decision"], recorded["actor"]) == ("rejected", "a.physicist")


def test_what_does_not_fit_is_refused_with_the_reason(broker: EmbeddedBroker, first_version: str) -> None:
    ran = order(broker, "rollback", first_version)
    assert ran.returncode == 1
    assert "no version is known to go back to" in ran.stderr


@pytest.mark.parametrize(
    ("given", "said"), [(("--reason", ""), "--reason:"), (("--reason", "x", "--by", "y" * 129), "--by:")]
)
def test_what_no_record_can_hold_is_said(
    broker: EmbeddedBroker, first_version: str, given: tuple[str, ...], said: str
) -> None:
    ran = medloop(broker, "release", "rollback", first_version, "--site", SITE, *given)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.usefixtures("first_version")
def test_a_forged_record_breaks_the_chain(broker: EmbeddedBroker) -> None:
    _, genuine = AuditChain().recorded(
        "forged",
        datetime(2026, 1, 1, tzinfo=UTC),
        decision=Decision.RELEASED,
        version="v1",
        reason="first",
        evidence={},
    )
    settings = BusSettings(kafka=broker.bootstrap)
    asyncio.run(sent(settings, outgoing(genuine, "/test")))
    assert medloop(broker, "audit", "verify", "--site", "forged").returncode == 0
    forged = genuine.model_copy(update={"decision": "promoted", "actor": "nobody"})
    asyncio.run(sent(settings, outgoing(forged, "/test")))
    ran = medloop(broker, "audit", "verify", "--site", "forged")
    assert ran.returncode == 1
    assert "two different records have this number" in ran.stderr


@pytest.mark.usefixtures("first_version")
def test_a_record_that_is_no_event_is_left_out(broker: EmbeddedBroker) -> None:
    odd = Outgoing(topic_of(ReleaseChanged).name, b"odd", b"{}")
    settings = BusSettings(kafka=broker.bootstrap)

    asyncio.run(sent(settings, odd))
    ran = medloop(broker, "release", "list", "--site", SITE)
    assert ran.returncode == 0
    assert "is left out" in ran.stderr
    assert SITE in ran.stdout


@pytest.mark.usefixtures("first_version")
def test_a_version_or_site_that_is_not_there_is_said(broker: EmbeddedBroker) -> None:
    for version, site in (("nobody-1", SITE), (CANDIDATE, "elsewhere")):
        ran = order(broker, "approve", version, site)
        assert ran.returncode == 2
        assert f"no version {version} at {site}" in ran.stderr


def test_a_site_is_shown_its_own_decisions_alone(
    broker: EmbeddedBroker, first_version: str, tmp_path: Path
) -> None:
    for site in (SITE, OTHER_SITE):
        found = tmp_path / f"{site}.json"
        shown = medloop(broker, "release", "show", first_version, "--site", site, "--json", found)
        assert f"released at {site} by publisher" in shown.stdout
        assert {each["site_id"] for each in json.loads(found.read_bytes())} == {site}


@pytest.mark.usefixtures("first_version")
def test_a_chain_is_verified_where_there_is_one(broker: EmbeddedBroker) -> None:
    kept = medloop(broker, "audit", "verify", "--site", SITE)
    assert kept.returncode == 0, kept.stderr
    assert f"{SITE}: " in kept.stderr
    assert "unbroken" in kept.stderr
    mistyped = medloop(broker, "audit", "verify", "--site", "order")
    assert mistyped.returncode == 2
    assert "--site order: no audit record of it" in mistyped.stderr
