"""`medloop tune`: one adaptation by hand, with what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from medloop_services.cli.loop import Corruption, Images, Model, Scenario, Severity, choose, prepare
from medloop_services.cli.options import Data, Json, Seed, print_rows, tell, write_json
from medloop_services.cli.progress import search_bar
from medloop_services.replay.settings import ScenarioName

if TYPE_CHECKING:
    from medloop_model.bootstrap import Interval
    from medloop_model.training.pipeline import Candidate
    from medloop_model.training.validation import Comparison

    from medloop_services.report.summary import Domains

HISTORY = "searches.json"
"""What searches have found, beside the candidate."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tune)


def tune(
    scenario: Scenario = ScenarioName.DATA_DRIFT,
    data: Data = None,
    model: Model = None,
    labels: Annotated[int, typer.Option(min=1, help="Images labelled since the change.")] = 256,
    tune_seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Search hyperparameters for so long. Off by default: it seldom pays."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the candidate and past searches.")] = Path(
        "runs/tune"
    ),
    before: Images = None,
    corruption: Corruption = None,
    severity: Severity = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Adapt a model to a drift in one go: choose, search, fine-tune, validate; write the candidate.

    The diagnosis is the scenario's, and its readers label the first images after the change. A quarter of the
    studies is kept for the verdict; the test images, which no part has seen, are shown beside it. Exits 0 if
    the candidate passes, 1 if not. Without --tune-seconds the same data, model and seed give the same bytes.

    Example: medloop tune --scenario concept-drift --labels 128 --json figures.json
    """
    from medloop_model.checkpoint import save_package
    from medloop_model.training.pipeline import PipelineSettings, auto_tuning_pipeline
    from medloop_model.training.tuning import TuningSettings, keep, read_history

    from medloop_services.judging import judge
    from medloop_services.pretraining import MODEL_FILE
    from medloop_services.tuning import report_of

    stream, choice = prepare(scenario, data, model, choose(seed, before, None, corruption, severity))
    search = None if tune_seconds is None else TuningSettings(seconds=tune_seconds, seed=seed)
    with search_bar() as told:
        candidate = auto_tuning_pipeline(
            report_of(stream, labels),
            choice.model,
            choice.teacher,
            PipelineSettings(tuning=search, seed=seed),
            past=read_history(out / HISTORY),
            progress=lambda trial: told(trial.score),
        )
    file = out / MODEL_FILE if candidate.package is not None else None
    if candidate.package is not None and file is not None:
        save_package(candidate.package, file)
        tell(f"wrote {file}")
    if candidate.evidence.tuned is not None:
        keep(out / HISTORY, candidate.evidence.tuned)
    domains = judge(stream, choice.model, file, oracle=None, announce=tell)
    _print(candidate, domains)
    test = {name: evaluation.as_json() for name, evaluation in domains if evaluation is not None}
    write_json(candidate.as_json() | {"test": test, "model": str(file) if file else None}, json)
    raise typer.Exit(0 if candidate.verdict.passed else 1)


def _print(candidate: Candidate, domains: Domains) -> None:
    """Print why, what was measured of base and candidate, and the verdict."""
    line = Console(soft_wrap=True, highlight=False, markup=False).print
    for reason in candidate.choice.reasons:
        line(reason.sentence)
    validation = candidate.evidence.validation
    rows = []
    for name, side in (("since", validation and validation.new), ("before", validation and validation.old)):
        rows += _rows(f"held out, {name}", side) if side else []
    tests = (
        ("test, since", "base", domains.drifted),
        ("test, since", "candidate", domains.after),
        ("test, before", "base", domains.old_domain_before),
        ("test, before", "candidate", domains.old_domain_after),
    )
    rows += [
        _row(images, model, found.n, found.balanced_accuracy, "", found.recall)
        for images, model, found in tests
        if found is not None
    ]
    print_rows(rows)
    tuned, evidence = candidate.evidence.tuned, candidate.evidence
    if tuned is not None:
        found = "took the plan's place" if tuned.paid else "is not surely better than the plan"
        line(f"search: the best of {len(tuned.trials)} trials in {tuned.seconds:.0f} s {found}")
    if evidence.temperature != 1:
        line(f"softened by a temperature of {evidence.temperature:.2f}")
    line(f"{evidence.new_labels} labels since the change trained on, {evidence.seconds:.0f} s in all")
    verdict = "passed" if candidate.verdict.passed else "refused"
    line(f"{verdict}: {candidate.verdict.reason}")


def _rows(images: str, side: Comparison) -> list[dict[str, str]]:
    return [
        _row(
            images,
            model,
            side.images,
            measured.balanced_accuracy,
            f"{measured.calibration_error.value:.3f}",
            {name: recall.value for name, recall in measured.recall.items()},
        )
        for model, measured in (("base", side.base), ("candidate", side.candidate))
    ]


def _row(
    images: str, model: str, count: int, accuracy: Interval, calibration: str, recall: Mapping[str, float]
) -> dict[str, str]:
    return {
        "images": images,
        "model": model,
        "n": str(count),
        "balanced accuracy %": "{:.1f} ({:.1f}–{:.1f})".format(
            *(100 * each for each in (accuracy.value, accuracy.low, accuracy.high))
        ),
        "calibration error": calibration,
        "recall %": ", ".join(f"{name} {100 * value:.0f}" for name, value in recall.items()),
    }
