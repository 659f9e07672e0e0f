"""`medloop topics`, `contract`, `config`, `release`, `audit`: what there is and what was decided."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from medloop_services.cli.options import Json, tell, write_json

if TYPE_CHECKING:
    from medloop_schemas import Event

E = TypeVar("E", bound="Event")

Site = Annotated[str | None, typer.Option("--site", help="Only this site's.")]

config = typer.Typer(no_args_is_help=True, help="Settings: MEDLOOP_… variables.")
release = typer.Typer(no_args_is_help=True, help="Releases: which version may serve whom.")
audit = typer.Typer(no_args_is_help=True, help="The publisher's decisions on record.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(topics)
    app.command()(contract)
    config.command("show")(show_config)
    release.command("list")(list_releases)
    audit.command("list")(list_audit)
    audit.command("verify")(verify_audit)
    app.add_typer(config, name="config")
    app.add_typer(release, name="release")
    app.add_typer(audit, name="audit")


def topics(json: Json = None) -> None:
    """List the topics: what each carries, what orders it, how long it is kept."""
    from medloop_schemas import TOPICS

    rows = [
        {
            "topic": topic.name,
            "event": topic.event.event_type,
            "key": topic.key,
            "partitions": topic.partitions,
            "kept": "forever" if topic.retention_ms < 0 else f"{topic.retention_ms // 86_400_000} days",
            "what": topic.description,
        }
        for topic in TOPICS
    ]
    _print(rows)
    write_json(rows, json)


def contract(
    folder: Annotated[Path, typer.Option("--out", help="Where to write it.")] = Path("contract"),
) -> None:
    """Write the published contract: AsyncAPI 3 and one JSON Schema an event."""
    from medloop_schemas.contract import write

    write(folder)
    tell(f"wrote the contract to {folder}")


def show_config(json: Json = None) -> None:
    """Show every setting in effect, its range and what it means; secrets are masked."""
    from medloop_services.cli.settings_table import effective_settings

    rows = effective_settings()
    _print(rows)
    write_json(rows, json)


def list_releases(site: Site = None, json: Json = None) -> None:
    """List release decisions in order: which version became what, and why."""
    from medloop_schemas import ReleaseChanged

    found = [event for event in _unique(ReleaseChanged) if site in (None, event.site_id)]
    _print(
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


def list_audit(site: Site = None, json: Json = None) -> None:
    """List the publisher's decisions with their evidence."""
    from medloop_schemas import AuditRecorded

    found = [event for event in _unique(AuditRecorded) if site in (None, event.site_id)]
    _print(
        [
            {
                "site": event.site_id,
                "number": event.number,
                "time": event.time.isoformat(timespec="seconds"),
                "decision": event.decision,
                "version": event.version,
                "actor": event.actor,
                "reason": event.reason,
                "hash": event.record_hash[:12],
            }
            for event in found
        ]
    )
    write_json([event.model_dump(mode="json") for event in found], json)


def verify_audit(site: Site = None) -> None:
    """Check that no audit record is missing or changed; exits 1 and names the first that is."""
    from medloop_schemas import AuditRecorded

    from medloop_services.publisher.audit import verify_chains

    records = [event for event in _unique(AuditRecorded) if site in (None, event.site_id)]
    for each, chain in verify_chains(records).items():
        tell(f"{each}: {chain.length} records, unbroken; the last hash is {chain.last_hash}")
    if not records:
        tell("no audit record yet")


def _unique(event_type: type[E]) -> list[E]:
    """The events of a topic, a repeat once, by site and number."""
    from medloop_schemas import decode, topic_of

    from medloop_services.bus.context import load_settings
    from medloop_services.bus.settings import BusSettings
    from medloop_services.replay.consumer import read_to_end

    async def collect() -> dict[str, E]:
        found: dict[str, E] = {}
        async for record in read_to_end(load_settings(BusSettings), [topic_of(event_type).name]):
            event = decode(event_type, record.value)
            found.setdefault(event.event_id, event)
        return found

    events = asyncio.run(collect()).values()
    return sorted(events, key=lambda event: (event.key, getattr(event, "number", 0)))


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None)
    for column in rows[0] if rows else ["nothing yet"]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
