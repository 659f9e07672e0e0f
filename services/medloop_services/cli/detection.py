"""`medloop detect`: what monitoring would have said of a stream. No broker, no learning."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from medloop_services.cli.loop import Corruption, Images, Model, Severity, choose, prepare
from medloop_services.cli.options import Data, Json, Seed, print_rows, tell, write_json
from medloop_services.replay.settings import ScenarioName

if TYPE_CHECKING:
    from medloop_services.detecting.false_alarms import FalseAlarmRate
    from medloop_services.detecting.page import Findings
    from medloop_services.detecting.source import Source
    from medloop_services.replay.scenario import Stream
    from medloop_services.report.where import Where

CONTRACT = "MEDLOOP_DRIFT_DETECTION_IMAGES_PER_FALSE_ALARM"

STATIONARY_IMAGES = 40_000
"""In which four false alarms are due by the usual contract: half a minute for both kinds of stream."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(detect)


def detect(
    stream: Annotated[
        str,
        typer.Option(
            "--stream",
            help="What to watch: a recording made by `medloop record` (FILE.parquet), or a scenario as in "
            f"`medloop simulate`: {', '.join(ScenarioName)}.",
        ),
    ] = ScenarioName.DATA_DRIFT.value,
    data: Data = None,
    model: Model = None,
    seed: Seed = 0,
    before: Images = None,
    after: Images = None,
    corruption: Corruption = None,
    severity: Severity = None,
    images_per_false_alarm: Annotated[
        int | None,
        typer.Option(
            "--images-per-false-alarm",
            min=100,
            help=f"The contract: one false alarm of a device in so many images. Default: {CONTRACT}, 5,000.",
        ),
    ] = None,
    stationary_images: Annotated[
        int,
        typer.Option(
            "--stationary-images",
            min=0,
            help="Images of each kind of stream on which the false-alarm rate is measured; 0 leaves it out.",
        ),
    ] = STATIONARY_IMAGES,
    report: Annotated[Path | None, typer.Option("--report", help="Write a report, one HTML file.")] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="Write the pictures to PNGs named after this one: NAME-layers.png, …"),
    ] = None,
    json: Json = None,
) -> None:
    """Watch a stream: which device would have alarmed, when, why, and since when it had changed.

    Runs inference, statistics and drift detection in one process; nothing is learned or published. --data
    names the images that the model was trained for: held-out ones of them, drawn into streams in which
    nothing changes, show how often an alarm is false. Columns: an alarm is raised at an image of the whole
    stream; "changed since" is the estimated first changed image with its 95 % interval.

    Exits 0 when monitoring ran, whether or not it alarmed; 1 where the stream or the model can't be used.

    Examples:

    medloop detect --data pneumoniamnist.npz --stream data-drift --report detect.html

    medloop record incident.parquet && medloop detect --data ours.npz --model models/ours --stream
    incident.parquet
    """
    from medloop_services.bus.logs import configure_logs
    from medloop_services.detecting.page import Findings
    from medloop_services.detecting.watching import watch

    configure_logs("detect", "ERROR")  # what the cores decide is in the table and in the report
    recording = _recording(stream)
    scenario = ScenarioName.DATA_DRIFT if recording else _scenario(stream)
    made, choice = prepare(scenario, data, model, choose(seed, before, after, corruption, severity))
    source = _source(recording, made)
    contract = {} if images_per_false_alarm is None else {CONTRACT: images_per_false_alarm}
    with tempfile.TemporaryDirectory(prefix="medloop-") as folder:
        with _bar("watching", source.images) as advance:
            watched = watch(source, choice.model, Path(folder), contract, advance)
        rates = _rates(made, choice.model, Path(folder), contract, stationary_images, seed)
    findings = Findings(
        source=source,
        watched=watched,
        data=made.dataset.source,
        model=choice.source,
        promised=_promised(contract),
        held_out=len(made.domains.pool_before),
        rates=rates,
    )
    write_json(findings.as_json(), json)
    if json is None or str(json) != "-":
        _print(findings)
    _write(findings, report, picture)


def _recording(stream: str) -> Path | None:
    from medloop_services.detecting.source import RECORDING

    return Path(stream) if stream.endswith(RECORDING) else None


def _scenario(stream: str) -> ScenarioName:
    if stream not in set(ScenarioName):
        raise typer.BadParameter(
            f"{stream!r} is neither a recording (FILE.parquet, made by `medloop record`) nor one of "
            f"{', '.join(ScenarioName)}",
            param_hint="--stream",
        )
    return ScenarioName(stream)


def _source(recording: Path | None, made: Stream) -> Source:
    from medloop_services.detecting.source import from_recording, from_scenario

    return from_recording(recording) if recording else from_scenario(made)


def _promised(contract: dict[str, Any]) -> int:
    from medloop_services.bus.context import load_settings
    from medloop_services.drift_detection.settings import DriftDetectionSettings

    return round(load_settings(DriftDetectionSettings, contract).images_per_alarm)


def _rates(
    made: Stream, model: Path, folder: Path, contract: dict[str, Any], images: int, seed: int
) -> list[FalseAlarmRate]:
    """Measure how often an alarm is false, on each kind of stationary stream."""
    from medloop_services.bus.context import load_settings
    from medloop_services.detecting.false_alarms import count_false_alarms
    from medloop_services.detecting.stationary_streams import Kind
    from medloop_services.detecting.watching import measure, reference_of
    from medloop_services.drift_detection.panel import Panel
    from medloop_services.drift_detection.settings import DriftDetectionSettings

    if not images:
        return []
    pool = made.domains.pool_before
    with _bar("measuring held-out images", len(pool)) as advance:
        measured = measure(pool, model, folder, advance)
    panel = Panel.calibrated(reference_of(model), load_settings(DriftDetectionSettings, contract))
    with _bar("counting false alarms", len(Kind) * images) as advance:
        return [
            count_false_alarms(
                panel,
                measured,
                pool.labels,
                made.domains.shares_before,
                kind,
                images=images,
                seed=seed,
                advance=advance,
            )
            for kind in Kind
        ]


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many images are done on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _print(findings: Findings) -> None:
    from medloop_services.detecting.page import rate_row
    from medloop_services.report.where_section import sentence

    console = Console(soft_wrap=True, markup=False, highlight=False)
    where = findings.watched.where
    console.print(sentence(where))
    if findings.source.known_position is not None:
        console.print(f"The stream changes at image {findings.source.known_position}.")
    if where.alarmed:
        print_rows(_alarm_rows(where))
    console.print(f"Promised: one false alarm of a device in {findings.promised:,} images.")
    if findings.rates:
        console.print(f"Measured on {findings.held_out:,} held-out images that calibration did not see:")
        print_rows([rate_row(rate, findings.promised) for rate in findings.rates])
    figures = findings.as_json()
    if figures["refused"]:
        refused = (f"{figures['refused']} events refused", "red")
        console.print(Text.assemble(refused, f", first: {figures['first_refusal']}"))


def _alarm_rows(where: Where) -> list[dict[str, str]]:
    from medloop_services.report.where_section import row

    titles = {"alarm": "alarm at image", "since": "changed since", "statistic": "seen in"}
    return [
        {titles.get(name, name): value for name, value in row(device, alarm).items()}
        for device in where.alarmed
        for alarm in device.alarms
    ]


def _write(findings: Findings, report: Path | None, picture: Path | None) -> None:
    from medloop_services.detecting.page import write_page
    from medloop_services.report.where_plots import save_where_pictures

    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        write_page(findings, report)
        tell(f"report: {report}")
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        for path in save_where_pictures(findings.watched.where, picture):
            tell(f"picture: {path}")
