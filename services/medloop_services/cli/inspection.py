"""`medloop topics`, `contract`, `config`, `audit`: what there is and what was decided."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from medloop_schemas import ConfigurationError

from medloop_services.cli.decisions import decisions
from medloop_services.cli.options import Json, Site, print_rows, tell, write_json

config = typer.Typer(no_args_is_help=True, help="Settings: MEDLOOP_… variables.")
audit = typer.Typer(no_args_is_help=True, help="The publisher's decisions on record.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(topics)
    app.command()(contract)
    config.command("show")(show_config)
    audit.command("list")(list_audit)
    audit.command("verify")(verify_audit)
    app.add_typer(config, name="config")
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
    print_rows(rows)
    write_json(rows, json)


def contract(
    folder: Annotated[Path, typer.Option("--out", help="Where to write it.")] = Path("contract"),
) -> None:
    """Write the published contract: AsyncAPI 3 and one JSON Schema an event."""
    from medloop_schemas.contract import write

    write(folder)
    tell(f"wrote the contract to {folder}")


def show_config(json: Json = None) -> None:
    """Show every setting in effect and what it means; secrets are masked."""
    from medloop_services.cli.settings_table import effective_settings

    rows = effective_settings()
    print_rows(rows)
    write_json(rows, json)


def list_audit(site: Site = None, json: Json = None) -> None:
    """List the publisher's decisions with their evidence."""
    from medloop_schemas import AuditRecorded

    found = [event for event in decisions(AuditRecorded) if site in (None, event.site_id)]
    print_rows(
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
    """Check that no audit record is missing or changed; exits 1 and names the first that is.

    That a chain's end was cut off shows only where its last hash was written down elsewhere.
    """
    from medloop_schemas import AuditRecorded

    from medloop_services.publisher.audit import verify_chains

    records = [event for event in decisions(AuditRecorded) if site in (None, event.site_id)]
    for each, chain in verify_chains(records).items():
        tell(f"{each}: {chain.length} records, unbroken; the last hash is {chain.last_hash}")
    if not records and site is not None:
        raise ConfigurationError(
            f"--site {site}: no audit record of it; `medloop audit list` shows the others'"
        )
    if not records:
        tell("no audit record yet")
