"""`medloop`, the command line. A command imports what it needs when it runs: not every image has torch."""

from __future__ import annotations

import sys

import typer
from medloop_schemas import ConfigurationError
from rich.console import Console
from rich.text import Text

from medloop_services.cli import (
    dead_letters,
    detection,
    federation,
    fisher,
    inspection,
    loop,
    models,
    operation,
    releases,
    streams,
    tuning,
)

app = typer.Typer(
    name="medloop",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Keeps a medical image model right after it ships: monitor, diagnose, fine-tune, publish.\n\n"
        "Start with `medloop demo`. Settings come from MEDLOOP_… variables; `medloop config show` lists them."
    ),
)
for part in (
    loop,
    tuning,
    detection,
    models,
    fisher,
    streams,
    operation,
    releases,
    dead_letters,
    federation,
    inspection,
):
    part.register(app)


def main() -> None:
    """Run `medloop`; a known error, or a file's, becomes one sentence and a code, 2 for a wrong setting."""
    try:
        app()
    except Exception as error:
        of_a_file = isinstance(error, OSError) and error.filename is not None
        if not of_a_file and not isinstance(getattr(error, "code", None), str):
            raise
        said = Text.assemble(("medloop:", "bold red"), f" {error}")
        Console(stderr=True, soft_wrap=True).print(said)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
