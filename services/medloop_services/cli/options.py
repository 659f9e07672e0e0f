"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="npz file in MedMNIST's layout, a folder of them, or 'phantoms'. "
        "Default: MEDLOOP_DATA, else MedMNIST's download, else phantoms.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is drawn.")]
Site = Annotated[str | None, typer.Option("--site", help="Only this site's.")]
Json = Annotated[
    Path | None, typer.Option("--json", help="Write the figures to this file, '-' for standard output.")
]


def write_json(figures: Any, path: Path | None) -> None:
    """Write figures as indented JSON where `--json` says, if it was given."""
    if path is None:
        return
    text = orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
    if str(path) == "-":
        typer.echo(text, nl=False)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)


def tell(line: str) -> None:
    """Say one line on standard error."""
    Console(stderr=True, soft_wrap=True).print(line, style="dim", highlight=False, markup=False)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print a table on standard output, its columns named by the first row."""
    table = Table(box=None)
    for column in rows[0] if rows else ["nothing yet"]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    Console().print(table)
