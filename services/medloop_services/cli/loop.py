"""`medloop demo` and `medloop simulate`: the whole loop on a stream that drifts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from medloop_schemas import ConfigurationError
from rich.console import Console
from rich.live import Live
from rich.text import Text

from medloop_services.cli.options import Data, Json, Seed, tell, write_json
from medloop_services.cli.progress import training_bar
from medloop_services.replay.settings import ScenarioName

if TYPE_CHECKING:
    from medloop_services.model_choice import ModelChoice
    from medloop_services.replay.scenario import Stream
    from medloop_services.report.summary import Summary
    from medloop_services.report.where import Where
    from medloop_services.simulation import Run

Scenario = Annotated[
    ScenarioName,
    typer.Option(
        "--scenario",
        help="What changes half way: the scanner (data-drift), the readers' policy (concept-drift), "
        "a class that was not there (new-class), or the site (site-change, for a file that names sites).",
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model", help="Folder of the model to start with. Default: shipped, or trained now and kept."
    ),
]
Report = Annotated[Path, typer.Option("--report", help="The report, one HTML file.")]
Picture = Annotated[
    Path | None,
    typer.Option(
        "--picture",
        help="Also write the report's plots to this PNG, and where drift is to PNGs beside it: "
        "NAME-layers.png, NAME-DEVICE-course.png and NAME-DEVICE-images.png.",
    ),
]
Oracle = Annotated[
    bool, typer.Option("--oracle/--no-oracle", help="Also train the same network offline on both domains.")
]
Images = Annotated[int | None, typer.Option(min=1, help="Images of this part of the stream.")]
Corruption = Annotated[
    str | None, typer.Option("--corruption", help="data-drift: what the new scanner does.")
]
Severity = Annotated[int | None, typer.Option("--severity", min=1, max=5, help="data-drift: how much.")]

DEMO_BEFORE = 500
"""Images before the drift: half a minute's worth at the usual rate."""
DEMO_AFTER = 4800
"""Images after it, at most: time for a slow machine to train all of a request's candidates and try one."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    app.command()(simulate)


def simulate(
    scenario: Scenario = ScenarioName.DATA_DRIFT,
    data: Data = None,
    seed: Seed = 0,
    model: Model = None,
    before: Images = None,
    after: Images = None,
    corruption: Corruption = None,
    severity: Severity = None,
    oracle: Oracle = True,
    report: Report = Path("runs/simulate.html"),
    picture: Picture = None,
    sites: Annotated[
        int | None,
        typer.Option("--sites", min=2, max=64, help="So many hospitals learn together instead; see above."),
    ] = None,
    non_iid: Annotated[
        float,
        typer.Option(
            "--non-iid",
            min=0.05,
            max=1000,
            help="α of the Dirichlet distribution that divides each class among --sites: the smaller, the "
            "more unlike are their patients.",
        ),
    ] = 0.3,
    poisoned: Annotated[
        int,
        typer.Option("--poisoned", min=0, help="So many of --sites send their update turned round, × 10."),
    ] = 0,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="Rounds in which --sites merge.")
    ] = 3,
    json: Json = None,
) -> None:
    """Run the loop in one process, without a broker: the same cores on the same stream, as fast as they go.

    Exits 0 only if the loop closed. The same data, seed and settings give the same events.

    --sites N compares hospitals with patients and scanners of their own: each alone, federated by every
    aggregator without an image leaving, and with all images pooled. It prints accuracy per site and over all
    patients; interrupted, the same command goes on from where it was.

    Example: medloop simulate --scenario new-class --data mednist_64.npz --json figures.json
    Example: medloop simulate --sites 5 --non-iid 0.3 --poisoned 1
    """
    if sites is not None:
        from medloop_services.cli.federation import federate

        federate(
            data,
            model,
            sites=sites,
            non_iid=non_iid,
            poisoned=poisoned,
            rounds=rounds,
            seed=seed,
            json=json,
        )
        return
    if poisoned:
        raise ConfigurationError(f"--poisoned {poisoned} needs --sites: there is no site that could cheat")
    from medloop_services.bus.logs import configure_logs
    from medloop_services.simulation import simulate as run

    configure_logs("simulate", "ERROR")  # what the cores decide is in the live view and in the report
    started = time.monotonic()
    stream, choice = prepare(scenario, data, model, choose(seed, before, after, corruption, severity))
    setup = time.monotonic() - started
    with tempfile.TemporaryDirectory(prefix="medloop-") as folder:
        with Live(console=Console(stderr=True), refresh_per_second=4) as live:
            result = run(stream, choice, Path(folder), watch=_viewer(live, stream, "medloop simulate"))
        summary = _judge(stream, choice, result, setup, seed, oracle)
    _finish(summary, report, picture, json)


def demo(
    scenario: Scenario = ScenarioName.DATA_DRIFT,
    data: Data = None,
    seed: Seed = 0,
    model: Model = None,
    before: Images = None,
    after: Images = None,
    corruption: Corruption = None,
    severity: Severity = None,
    rate: Annotated[float, typer.Option("--rate", min=0.1, help="Images a second.")] = 15.0,
    oracle: Oracle = True,
    folder: Annotated[Path, typer.Option("--folder", help="For the broker's data, logs and models.")] = Path(
        "runs/demo"
    ),
    report: Report = Path("runs/demo.html"),
    picture: Picture = None,
    json: Json = None,
) -> None:
    """Run the whole loop: a real Kafka broker, seven services as processes, a stream that drifts half way.

    Shows live how medloop notices, finds out why, fine-tunes the ternary model, gates, canaries and releases
    it. The stream ends soon after the release, or --after images after the drift; then comes a report.
    Exits 0 only if the loop closed. MEDLOOP_KAFKA=host:port uses your cluster.

    Example: medloop demo --scenario concept-drift --json figures.json
    """
    from medloop_services.demo.run import run_demo

    started = time.monotonic()
    chosen = choose(seed, before or DEMO_BEFORE, after or DEMO_AFTER, corruption, severity)
    stream, choice = prepare(scenario, data, model, chosen)
    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        view = _viewer(live, stream, f"medloop demo · {scenario.value}")
        result, ready = run_demo(stream, choice, folder, rate=rate, watch=view)
    setup = ready - started
    _finish(_judge(stream, choice, result, setup, seed, oracle), report, picture, json)


def choose(
    seed: int, before: int | None, after: int | None, corruption: str | None, severity: int | None
) -> dict[str, Any]:
    """Return the variables that set what was chosen of a stream; the others keep theirs."""
    wanted = {
        "SEED": seed,
        "IMAGES_BEFORE": before,
        "IMAGES_AFTER": after,
        "CORRUPTION": corruption,
        "SEVERITY": severity,
    }
    return {f"MEDLOOP_REPLAY_{name}": value for name, value in wanted.items() if value is not None}


def prepare(
    scenario: ScenarioName, data: str | None, model: Path | None, chosen: dict[str, Any]
) -> tuple[Stream, ModelChoice]:
    """Return a scenario's stream, and the model that it starts with.

    Args:
        scenario: what changes.
        data: as `--data`.
        model: a named one, if any.
        chosen: variables of the stream.
    """
    from medloop_services.bus.context import load_settings
    from medloop_services.model_choice import choose_model
    from medloop_services.replay.dataset import load_dataset
    from medloop_services.replay.scenario import build_scenario
    from medloop_services.replay.settings import ScenarioSettings

    dataset = load_dataset(data, scenario=scenario.value, announce=tell)
    stream = build_scenario(dataset, scenario, load_settings(ScenarioSettings, chosen))
    with training_bar() as progress:
        choice = choose_model(stream, model, tell, progress)
    return stream, choice


def _viewer(live: Live, stream: Stream, title: str) -> Callable[..., None]:
    from medloop_services.demo.view import draw

    images = len(stream.shown)
    drawn = 0.0

    def watch(trace: Any, phase: str = "", notes: Sequence[str] = ()) -> None:
        nonlocal drawn
        if time.monotonic() - drawn > 0.5 or len(trace.images) == images:  # drawing costs more than an image
            drawn = time.monotonic()
            live.update(
                draw(trace, title=title, images=images, drift_at=stream.drift_at, phase=phase, notes=notes)
            )

    return watch


def _judge(
    stream: Stream, choice: ModelChoice, result: Run, setup: float, seed: int, with_oracle: bool
) -> Summary:
    from medloop_model.training.oracle import OracleSettings

    from medloop_services.judging import judge
    from medloop_services.report.summary import EXPECTED, Summary

    oracle = OracleSettings(steps=160, threads=2) if with_oracle else None
    return Summary(
        scenario=stream.scenario.value,
        data=stream.dataset.source,
        seed=seed,
        images=len(result.trace.images),
        drift_at_image=stream.drift_at,
        expected_diagnosis=EXPECTED[stream.scenario.value],
        setup_seconds=setup,
        drift_seconds=result.drift_seconds,
        trace=result.trace,
        where=_located(stream, choice, result),
        domains=judge(stream, choice.model, result.released, oracle=oracle, announce=tell),
    )


def _located(stream: Stream, choice: ModelChoice, result: Run) -> Where:
    from medloop_services.detecting.watching import reference_of
    from medloop_services.report.standard_scores import Standard
    from medloop_services.report.where import locate

    base = result.trace.base
    return locate(
        result.trace,
        Standard.of(reference_of(choice.model)),
        base.version if base else "",
        stream.onset,
        stream.drift_at,
    )


def _finish(summary: Summary, report: Path, picture: Path | None, json: Path | None) -> None:
    from medloop_services.report.html import story, write_report
    from medloop_services.report.plots import save_picture
    from medloop_services.report.where_plots import save_where_pictures
    from medloop_services.report.where_section import sentence

    report.parent.mkdir(parents=True, exist_ok=True)
    write_report(summary, report)
    if picture is not None:
        save_picture(summary, picture)
        save_where_pictures(summary.where, picture)
    figures = summary.as_json()
    write_json(figures, json)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(story(summary))
    console.print(f"  {sentence(summary.where)}")
    for name, evaluation in summary.domains:
        if evaluation is not None:
            balanced = evaluation.balanced_accuracy
            console.print(
                f"  {name.replace('_', ' '):18} balanced accuracy {100 * balanced.value:5.1f} % "
                f"({100 * balanced.low:.1f}–{100 * balanced.high:.1f}), n = {evaluation.n}"
            )
    if summary.gap_closed is not None:
        console.print(f"  gap to the oracle closed: {100 * summary.gap_closed:.0f} %")
    events = figures["events"]
    console.print(
        f"  {events['images']} images, {events['predictions']} predictions, "
        f"{events['dead_letters']} dead letters, "
        f"{events['lost']} lost, {events['duplicates_in_effect']} duplicates in effect"
    )
    console.print(f"report: {report}")
    for reason in summary.reasons_open:
        console.print(Text.assemble(("open:", "red"), f" {reason}"))
    console.print(f"closed: {str(figures['closed']).lower()}")
    raise typer.Exit(0 if figures["closed"] else 1)
