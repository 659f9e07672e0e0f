"""`medloop up`, `down`, `status`, `service`: the stack on this machine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from medloop_schemas import MedloopError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medloop_services.cli.options import Json, tell, write_json

if TYPE_CHECKING:
    from medloop_services.stack import ServiceStatus, StackState

Folder = Annotated[Path, typer.Option("--folder", help="For the broker's data, logs and model files.")]

READY_PATIENCE_S = 180.0
DEFAULT_FOLDER = Path(".medloop")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status, service):
        app.command()(command)


def up(folder: Folder = DEFAULT_FOLDER) -> None:
    """Start a broker and all seven services in the background, and wait until they are ready.

    What runs already keeps running, what has died is started again. Data stays in the folder over restarts.
    MEDLOOP_KAFKA=host:port uses your cluster instead of the embedded broker.
    """
    from medloop_services.stack import read_state

    if read_state(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "supervisor.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "medloop_services.supervisor", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _await_state(folder, process, log)
    deadline = time.monotonic() + READY_PATIENCE_S
    while (state := read_state(folder)) is not None:
        if not _waiting(state):
            _print_status(state)
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    status(folder)
    raise typer.Exit(1)


def down(folder: Folder = DEFAULT_FOLDER) -> None:
    """Stop the services in good order, then the broker. Data stays in the folder."""
    from medloop_services.stack import stop_supervisor

    tell("stopped" if stop_supervisor(folder) else f"nothing runs in {folder}")


def status(folder: Folder = DEFAULT_FOLDER, json: Json = None) -> None:
    """Show each service: ready, degraded or what it waits for, its restarts, its log and metrics."""
    from medloop_services.stack import read_state, service_statuses

    state = read_state(folder)
    if state is None:
        tell(f"nothing runs in {folder}; start it with `medloop up`")
        raise typer.Exit(1)
    write_json([asdict(each) for each in asyncio.run(service_statuses(state))], json)
    _print_status(state)


def service(
    name: Annotated[str, typer.Argument(help="inference, feature_stats, drift_detection, …")],
) -> None:
    """Run one service in the foreground until SIGTERM; settings come from MEDLOOP_… variables."""
    from medloop_services.bus.runner import run_service_named

    raise typer.Exit(run_service_named(name))


def _await_state(folder: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    from medloop_services.stack import read_state

    while read_state(folder) is None:
        if process.poll() is not None:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise MedloopError(f"the stack did not start; the end of {log}:\n{tail}")
        time.sleep(0.1)


def _waiting(state: StackState) -> bool:
    from medloop_services.stack import service_statuses

    return not all(each.ready for each in asyncio.run(service_statuses(state)))


def _print_status(state: StackState) -> None:
    from medloop_services.stack import service_statuses

    table = Table(box=None)
    for column in ("service", "ready", "restarts", "health and metrics", "log", "says"):
        table.add_column(column, overflow="fold")
    for each in asyncio.run(service_statuses(state)):
        running = state.services[each.name]
        table.add_row(
            each.name,
            _standing(each),
            str(running.restarts),
            f"http://127.0.0.1:{running.health_port}",
            running.log,
            Text("; ".join((*each.reasons, *each.degraded, *each.notes))),
        )
    console = Console()
    console.print(f"Kafka: {state.bootstrap}   models: {state.artifacts}", soft_wrap=True)
    console.print(table)


def _standing(status: ServiceStatus) -> str:
    if not status.ready:
        return "[red]no[/]"
    return "[yellow]degraded[/]" if status.degraded else "[green]yes[/]"
