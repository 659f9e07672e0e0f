"""`medloop release`: which version may serve whom, and a person's say in it."""

from __future__ import annotations

import asyncio
import getpass
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from medloop_schemas import ConfigurationError, InvalidEvent, Order, TransientError
from pydantic import ValidationError
from rich.console import Console

from medloop_services.cli.decisions import decisions
from medloop_services.cli.options import Json, Site, print_rows, tell, write_json
from medloop_services.cli.sending import send

if TYPE_CHECKING:
    from medloop_schemas import AuditRecorded, CandidateTrained, ReleaseChanged, ReleaseOrdered

POLL_S = 0.5

Version = Annotated[str, typer.Argument(help="As `medloop release list` prints it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; goes into the audit record.")]
Person = Annotated[
    str, typer.Option("--by", default_factory=getpass.getuser, help="Who decides: the audit record's actor.")
]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the publisher's answer.")]

release = typer.Typer(no_args_is_help=True, help="Releases: which version may serve whom.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    release.command("list")(list_releases)
    release.command("show")(show)
    release.command("approve")(approve)
    release.command("reject")(reject)
    release.command("rollback")(rollback)
    app.add_typer(release, name="release")


def list_releases(site: Site = None, json: Json = None) -> None:
    """List release decisions in order: which version became what, and why."""
    from medloop_schemas import ReleaseChanged

    found = [event for event in decisions(ReleaseChanged) if site in (None, event.site_id)]
    print_rows(
        [
            {
                "site": event.site_id,
                "number": event.number,
                "version": event.version,
                "stage": event.stage.value,
                "devices": ", ".join(event.devices) or "all",
                "reason": event.reason,
            }
            for event in found
        ]
    )
    write_json([event.model_dump(mode="json") for event in found], json)


def show(version: Version, site: Site = None, json: Json = None) -> None:
    """Show one version: its file, its way to the devices, and what each decision on it rested on."""
    from medloop_schemas import AuditRecorded, CandidateTrained, ReleaseChanged

    known = _about(version, site)
    records = [
        each for each in decisions(AuditRecorded) if each.version == version and site in (None, each.site_id)
    ]
    console = Console(soft_wrap=True, markup=False, highlight=False)
    package = known[0].package
    console.print(f"{version}: {package.size} bytes, sha256 {package.sha256}\n{package.url}")
    console.print(f"classes: {', '.join(known[0].classes)}")
    for each in known:
        if isinstance(each, CandidateTrained):
            console.print(
                f"trained from {each.base_version} for {each.diagnosis.value} by {each.strategy.value}: "
                f"{each.labels_used} new labels, {each.updates} updates"
            )
    changes = [each for each in known if isinstance(each, ReleaseChanged)]
    if changes:
        print_rows([_stage(each) for each in changes])
    for record in records:
        console.print(f"\n{record.decision} at {record.site_id} by {record.actor}: {record.reason}")
        for name, value in record.evidence.items():
            console.print(f"  {name.replace('_', ' ')}: {value}")
    write_json([each.model_dump(mode="json") for each in (*known, *records)], json)


def approve(version: Version, reason: Reason, person: Person, site: Site = None, wait: Wait = 30.0) -> None:
    """Let a version that has been tried serve every device (where MEDLOOP_PUBLISHER_APPROVAL=true asks).

    Example: medloop release approve ward-21fff805976c --reason "board of 3 May"
    """
    _give(Order.APPROVE, version, reason, person, site, wait)


def reject(version: Version, reason: Reason, person: Person, site: Site = None, wait: Wait = 30.0) -> None:
    """End a candidate: one at the gate is rejected, one on trial is rolled back.

    Example: medloop release reject ward-21fff805976c --reason "marks every pacemaker"
    """
    _give(Order.REJECT, version, reason, person, site, wait)


def rollback(version: Version, reason: Reason, person: Person, site: Site = None, wait: Wait = 30.0) -> None:
    """Take the version that serves every device out of service; the one before it serves again.

    Example: medloop release rollback ward-21fff805976c --reason "radiology reports misses"
    """
    _give(Order.ROLLBACK, version, reason, person, site, wait)


def _give(order: Order, version: str, reason: str, person: str, site: str | None, wait: float) -> None:
    from medloop_schemas import ReleaseOrdered

    try:
        given = ReleaseOrdered(
            time=datetime.now(UTC),
            site_id=_site_of(version, site),
            order_id=uuid.uuid4().hex,
            order=order,
            version=version,
            person=person,
            reason=reason,
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        option = "--by" if "person" in wrong["loc"] else "--reason"
        raise ConfigurationError(f"{option}: {wrong['msg']}") from None
    send(given)
    record = _answer(given, wait)
    tell(f"{record.decision} by {record.actor}, record {record.number} of {record.site_id}")


def _site_of(version: str, site: str | None) -> str:
    sites = sorted({each.site_id for each in _about(version, site)})
    if len(sites) > 1:
        raise ConfigurationError(f"{version} was released at {', '.join(sites)}: choose one with --site")
    return sites[0]


def _about(version: str, site: str | None) -> list[CandidateTrained | ReleaseChanged]:
    """How a version was trained, and how far it has come; what waits at the gate has only been trained."""
    from medloop_schemas import CandidateTrained, ReleaseChanged

    known: list[CandidateTrained | ReleaseChanged] = [*decisions(CandidateTrained)]
    known += decisions(ReleaseChanged)
    found = [each for each in known if each.version == version and site in (None, each.site_id)]
    if not found:
        where = f" at {site}" if site else ""
        raise ConfigurationError(
            f"no version {version}{where}; `medloop release list` prints those there are"
        )
    return found


def _answer(order: ReleaseOrdered, wait: float) -> AuditRecorded:
    """The audit record that follows from an order.

    Raises:
        InvalidEvent: the publisher refused it; says why.
        TransientError: there is no answer yet.
    """
    from medloop_schemas import AuditRecorded

    deadline = time.monotonic() + wait
    while True:
        for record in decisions(AuditRecorded):
            if record.evidence.get("order_id") == order.event_id and record.version == order.version:
                return record
        if refusal := asyncio.run(_refusal(order)):
            raise refusal
        if time.monotonic() > deadline:
            raise TransientError(
                "the publisher has not answered yet; the order stands, and `medloop audit list` will show "
                "what came of it. Is it running? `medloop status`"
            )
        time.sleep(POLL_S)


async def _refusal(order: ReleaseOrdered) -> InvalidEvent | None:
    from medloop_schemas import topic_of

    from medloop_services.bus.context import load_settings
    from medloop_services.bus.dead_letters import list_dead_letters
    from medloop_services.bus.settings import BusSettings

    for letter in await list_dead_letters(load_settings(BusSettings), topic_of(type(order)).name):
        if ("ce_id", order.event_id.encode()) in letter.headers:
            return InvalidEvent(letter.code, letter.field, letter.reason)
    return None


def _stage(change: ReleaseChanged) -> dict[str, Any]:
    return {
        "site": change.site_id,
        "number": change.number,
        "stage": change.stage.value,
        "devices": ", ".join(change.devices) or "all",
        "reason": change.reason,
    }
