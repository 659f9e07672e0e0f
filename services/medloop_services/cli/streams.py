"""`medloop record` and `medloop replay`: topics to a file and back, or a scenario to topics."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress

from medloop_services.cli.options import Data, Seed, tell
from medloop_services.replay.settings import ScenarioName

if TYPE_CHECKING:
    from medloop_schemas import Message

    from medloop_services.bus.settings import BusSettings

T = TypeVar("T")

SOURCE = "/medloop/replay"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(record)
    app.command()(replay)


def record(
    path: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", help="A topic; repeat for several. Default: images and labels."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Record topics in a Parquet file, so that an incident can be replayed.

    Example: medloop record incident.parquet --topic medloop.images.v1 --topic medloop.labels.v1
    """
    from medloop_services.replay.consumer import record_topics

    topics = topic or _input_topics()
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("records", total=None)
        work = record_topics(
            _kafka(), topics, path, follow=follow, progress=lambda count: bar.advance(task, count)
        )
        count = _run(work)
    tell(f"{path}: {count} records of {', '.join(topics)}")


def replay(
    source: Annotated[
        str | None, typer.Argument(help="A recording (.parquet). Without one, a scenario is streamed.")
    ] = None,
    scenario: Annotated[
        ScenarioName, typer.Option("--scenario", help="What drifts.")
    ] = ScenarioName.DATA_DRIFT,
    data: Data = None,
    seed: Seed = 0,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.1, help="Images a second. Default: as fast as possible.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--again", help="Skip what is on the topics already, or send it again.")
    ] = True,
) -> None:
    """Send a recording, or a scenario made from an npz file, to the topics.

    Interrupted (Ctrl-C), the same command goes on where it stopped. Label delay, devices and more are
    settings: `medloop config show` lists MEDLOOP_REPLAY_….

    Example: medloop replay --scenario new-class --data mednist_64.npz --rate 20
    """
    from medloop_schemas import encode

    from medloop_services.bus.context import load_settings
    from medloop_services.replay.dataset import load_dataset
    from medloop_services.replay.producer import send, sent_ids
    from medloop_services.replay.recording import count_records, read_recording
    from medloop_services.replay.scenario import build_scenario
    from medloop_services.replay.settings import ScenarioSettings

    messages: Iterable[Message]
    if source is not None:
        messages, total = (
            (each.message() for each in read_recording(Path(source))),
            count_records(Path(source)),
        )
    else:
        dataset = load_dataset(data, scenario=scenario.value, announce=tell)
        settings = load_settings(ScenarioSettings, {"MEDLOOP_REPLAY_SEED": seed})
        stream = build_scenario(dataset, scenario, settings)
        messages = (encode(event, SOURCE) for event in stream.events())
        total = len(stream.shown) + int(stream.labelled.sum())
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("events", total=total)

        async def work() -> Any:
            skip = await sent_ids(_kafka(), _input_topics()) if resume else set()
            return await send(
                _kafka(),
                messages,
                rate=rate,
                paced_topics=_input_topics()[:1],
                skip=skip,
                progress=lambda count: bar.advance(task, count),
            )

        sent = _run(work())
    tell(f"{sent.acknowledged} events acknowledged, {sent.skipped} were there already")


def _input_topics() -> list[str]:
    from medloop_schemas import ImageAcquired, LabelConfirmed, topic_of

    return [topic_of(ImageAcquired).name, topic_of(LabelConfirmed).name]


def _kafka() -> BusSettings:
    from medloop_services.bus.context import load_settings
    from medloop_services.bus.settings import BusSettings

    return load_settings(BusSettings)


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        tell("stopped; what was acknowledged stays, run the same command to go on")
        raise typer.Exit(130) from None
