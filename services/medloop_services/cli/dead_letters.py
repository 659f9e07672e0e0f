"""`medloop dlq`: what could not be handled, why, and once the cause is gone, back to where it came from."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from medloop_schemas import ConfigurationError, TransientError
from rich.console import Console

from medloop_services.cli.options import Json, print_rows, tell, write_json

if TYPE_CHECKING:
    from medloop_services.bus.dead_letters import DeadLetter
    from medloop_services.bus.settings import BusSettings

T = TypeVar("T")

Topic = Annotated[
    str | None, typer.Option("--topic", help="Only records of this topic, such as medloop.images.v1.")
]
Code = Annotated[str | None, typer.Option("--code", help="Only letters with this error code.")]
Place = Annotated[str, typer.Argument(help="topic:partition:offset of the record, as `list` prints it.")]

dlq = typer.Typer(no_args_is_help=True, help="Dead letters: messages that could not be handled, and why.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    dlq.command("list")(list_letters)
    dlq.command("show")(show)
    dlq.command("replay")(replay)
    app.add_typer(dlq, name="dlq")


def list_letters(topic: Topic = None, code: Code = None, json: Json = None) -> None:
    """List dead letters: where each came from, who refused it and why."""
    found = _find(topic, code)
    if found:
        print_rows([_row(letter) | {"reason": letter.reason.splitlines()[0]} for letter in found])
    else:
        tell("no dead letters")
    write_json([_row(letter) for letter in found], json)


def show(place: Place, json: Json = None) -> None:
    """Show one record byte for byte, with its headers and the reason of each service that refused it."""
    found = _at(place)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    for letter in found:
        console.print(f"{letter.service}: {letter.code} {letter.field}\n{letter.reason}")
    first = found[0]
    for name, value in first.headers:
        console.print(f"{name}: {value.decode(errors='replace')}")
    console.print(f"key: {_text(first.key)}\n{_text(first.value)}")
    write_json([_row(letter) | _content(letter) for letter in found], json)


def replay(
    place: Annotated[
        str | None, typer.Argument(help="One record. Without it, all, or all of --topic or --code.")
    ] = None,
    topic: Topic = None,
    code: Code = None,
) -> None:
    """Send dead letters again to the topics they came from; do it after the cause has been put right.

    Example: medloop dlq replay --topic medloop.images.v1 --code site
    """
    from medloop_services.bus.dead_letters import replay_dead_letters

    chosen = _find(topic, code) if place is None else _at(place)
    tell(f"{_run(replay_dead_letters(_settings(), chosen))} records sent again")


def _find(topic: str | None, code: str | None) -> list[DeadLetter]:
    from medloop_schemas import TOPICS

    from medloop_services.bus.dead_letters import list_dead_letters

    names = [each.name for each in TOPICS]
    if topic not in (None, *names):
        raise ConfigurationError(f"--topic {topic}: there is no such topic; choose of {', '.join(names)}")
    found = _run(list_dead_letters(_settings(), topic))
    return [letter for letter in found if code in (None, letter.code)]


def _at(place: str) -> list[DeadLetter]:
    from medloop_services.bus.dead_letters import show_dead_letter

    found = _run(show_dead_letter(_settings(), place))
    if not found:
        raise ConfigurationError(f"no dead letter of {place}; `medloop dlq list` prints those there are")
    return found


def _settings() -> BusSettings:
    from medloop_services.bus.context import load_settings
    from medloop_services.bus.settings import BusSettings

    return load_settings(BusSettings)


def _run(work: Coroutine[Any, Any, T]) -> T:
    from aiokafka.errors import KafkaError

    try:
        return asyncio.run(work)
    except KafkaError as error:
        raise TransientError(
            f"no broker answers at {_settings().kafka} ({error}); "
            "start one with `medloop up` or set MEDLOOP_KAFKA"
        ) from None


def _row(letter: DeadLetter) -> dict[str, str]:
    return {
        "place": letter.place,
        "service": letter.service,
        "code": letter.code,
        "field": letter.field,
        "reason": letter.reason,
    }


def _content(letter: DeadLetter) -> dict[str, Any]:
    headers = {name: value.decode(errors="replace") for name, value in letter.headers}
    return {"key": _text(letter.key), "value": _text(letter.value), "headers": headers}


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode(errors="replace")
