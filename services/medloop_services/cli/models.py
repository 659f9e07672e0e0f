"""`medloop pretrain`, `evaluate`, `kernels`, `bench`: models on their own, without a stream."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from medloop_schemas import ConfigurationError, MedloopError
from orjson import loads
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medloop_services.cli.options import Data, Json, Seed, print_rows, tell, write_json
from medloop_services.cli.progress import training_bar
from medloop_services.ternary import Ternary

if TYPE_CHECKING:
    from medloop_services.pretraining import ModelFiles
    from medloop_services.replay.dataset import Dataset


class BenchmarkFailed(MedloopError):
    """A benchmark's process ended with an error."""

    code = "benchmark"


BENCHMARKS = ("kernels", "drift", "learn", "federation")
"""Folders of benchmarks/."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(pretrain)
    app.command()(evaluate)
    app.command()(kernels)
    # What the benchmark itself understands is passed on to it.
    app.command(context_settings={"ignore_unknown_options": True})(bench)


def pretrain(
    out: Annotated[Path, typer.Option("--out", help="Folder for model.safetensors and teacher.safetensors.")],
    data: Data = None,
    seed: Seed = 0,
    name: Annotated[str, typer.Option("--name", help="First part of the model's version.")] = "ward",
    teacher_steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of the teacher.")] = None,
    student_steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of the student.")] = None,
    ternary: Annotated[
        Ternary,
        typer.Option(
            help="Ternary weights: the MLPs' (as published), the attention's too, or all: patch embedding, "
            "positions, head and norms too."
        ),
    ] = Ternary.ATTENTION,
    features: Annotated[
        float | None,
        typer.Option(min=0, help="Weight of the teacher's last tokens beside its logits, for the student."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="'medmnist': one model for each of its twelve 2-D sets.")
    ] = None,
    json: Json = None,
) -> None:
    """Train a full-precision teacher and its ternary student; measure the monitoring reference.

    70 % of the training images are trained on; the other 30 % are left for streams. Takes some minutes on
    one core for 28 px images. The same data, seed and processor type give the same bytes. Interrupted, the
    same command goes on from where it was.

    --suite medmnist trains a model a data set (those of MEDLOOP_DATA, else MedMNIST's downloads) and prints
    test accuracies beside the published ones.

    Example: medloop pretrain --data pneumoniamnist.npz --out models/pneumonia
    """
    from medloop_model.training.pretraining import PretrainSettings

    from medloop_services.pretraining import Home, pretrain_model
    from medloop_services.replay.dataset import load_dataset

    given = {"teacher_steps": teacher_steps, "student_steps": student_steps, "features": features}
    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    settings = PretrainSettings(seed=seed, **chosen)
    options = [f"--seed {seed} --name {name}"]
    options += [f"--{key.replace('_', '-')} {value}" for key, value in chosen.items()]
    options += [f"--ternary {ternary}"] * (ternary is not Ternary.ATTENTION)

    def command_of(file: str) -> str:
        return f"medloop pretrain --data {file} {' '.join(options)}"

    def train(dataset: Dataset, folder: Path, file: str) -> ModelFiles:
        home = Home(
            data=dataset.name,
            digest=dataset.digest,
            class_names=dataset.class_names,
            training=dataset.divide().training,
            validation=dataset.validation,
            test=dataset.test,
            ternary=ternary,
        )
        with training_bar() as progress:
            return pretrain_model(
                home, folder, name=name, settings=settings, command=command_of(file), progress=progress
            )

    if suite is not None:
        _pretrain_suite(suite, out, command_of, train, json)
        return
    dataset = load_dataset(data, announce=tell)
    files = train(dataset, out, Path(data).name if data else dataset.name)
    figures = {"teacher": files.teacher_test.as_json(), "student": files.student_test.as_json()}
    _print_evaluations(figures)
    size = files.model.stat().st_size + files.teacher.stat().st_size
    tell(f"wrote {files.model} and {files.teacher.name}, {size / 1e6:.1f} MB together")
    write_json(figures | {"model": str(files.model), "teacher": str(files.teacher), "bytes": size}, json)


def _pretrain_suite(
    suite: str,
    out: Path,
    command_of: Callable[[str], str],
    train: Callable[[Dataset, Path, str], ModelFiles],
    json: Path | None,
) -> None:
    from medloop_services.bus.context import load_settings
    from medloop_services.medmnist_suite import run_suite
    from medloop_services.replay.dataset import DataSettings

    if suite != "medmnist":
        raise ConfigurationError(f"--suite {suite}: there is only medmnist")
    rows = run_suite(
        out,
        load_settings(DataSettings).data,
        command_of=command_of,
        train=lambda dataset, folder: (
            train(dataset, folder, f"{dataset.name}.npz").student_test.accuracy.value
        ),
        tell=tell,
    )
    print_rows(
        [
            {
                "data": row.data,
                "ours %": "-" if row.ours is None else f"{100 * row.ours:.1f}",
                "published %": f"{100 * row.published:.1f}",
                "difference": "-" if row.ours is None else f"{100 * (row.ours - row.published):+.1f}",
                "": row.reason,
            }
            for row in rows
        ]
    )
    write_json([asdict(row) for row in rows], json)


def evaluate(
    model: Annotated[Path, typer.Option("--model", help="Folder or file of a model package.")],
    data: Data = None,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    json: Json = None,
) -> None:
    """Measure a model on a split: accuracy, balanced accuracy, AUC and recall per class, with 95 % intervals.

    Runs the packed model on the ternary kernels, as it is served.

    Example: medloop evaluate --data pneumoniamnist.npz --model models/pneumonia --split test
    """
    from medloop_model.checkpoint import load_package
    from medloop_model.engine import Engine

    from medloop_services.pretraining import MODEL_FILE
    from medloop_services.replay.dataset import load_dataset
    from medloop_services.report.evaluation import evaluate as measure

    dataset = load_dataset(data, announce=tell)
    if split not in {"train", "validation", "test"}:
        raise ConfigurationError(f"--split {split}: choose train, validation or test")
    images = getattr(dataset, split)
    engine = Engine(load_package(model / MODEL_FILE if model.is_dir() else model))
    figures = {split: measure(engine, images.images, images.labels, dataset.class_names).as_json()}
    _print_evaluations(figures)
    write_json(figures, json)


def kernels(json: Json = None) -> None:
    """Show which back end and instruction set networks run on, and why; how many threads; what reads energy.

    MEDLOOP_KERNELS=reference|cpu|cpu:<instruction set>|cuda|tensorrt overrides, and
    MEDLOOP_KERNELS_THREADS=1…64.
    """
    from medloop_kernels import EnergyUnavailable, open_meter, threads
    from medloop_kernels.dispatch import describe

    tell(f"{threads()} thread(s) a batch")
    try:
        tell(f"energy is read from {open_meter().source}")
    except EnergyUnavailable as unavailable:
        tell(f"energy can't be read: {unavailable}")
    rows = [asdict(row) for row in describe()]
    print_rows(rows)
    write_json(rows, json)


def bench(
    what: Annotated[str, typer.Argument(help="kernels, drift, learn or federation.")],
    options: Annotated[
        list[str] | None, typer.Argument(help="The benchmark's own options; `-- --help` lists them.")
    ] = None,
    backend: Annotated[str, typer.Option("--backend", help="Of kernels: cpu or cuda.")] = "cpu",
    json: Json = None,
) -> None:
    """Run the benchmarks of a part, each against a peer measured in the same run. Needs a source checkout.

    `kernels` prints ratios to ONNX Runtime (`make bench-peers` installs it), to torch and to the same engine
    with int8 weights, the distance to the machine's measured limit, the bytes that an image moves and, where
    the machine says it, the joules that an image takes.
    `kernels --backend cuda` prints ratios to cuBLASLt's int8 and to torch's float16 and bfloat16 on this
    machine's GPU; without one it says what is missing, and there is no figure.
    `drift` prints how soon changes of scanner, patients, readers and laboratory are noticed, images a false
    alarm on independent and on correlated streams, what watching costs, and which causes are named, beside
    River, alibi-detect and frouros on the same streams (`make bench-peers` installs the last two). It takes
    --seed, --data, --model, --corruptions, --streams, --images, --scenarios, --shuffles, --pool, --peers and
    --plots.
    `learn` prints how fast and how lastingly a model learns a new scanner, laboratory, policy or class beside
    fine-tuning, replay, DER++, the source article's rules, Avalanche and an oracle on the same labels. It
    takes --quick (minutes), --conditions, --methods, --seeds, --held-out, --workers, --data and --out, where
    what is done is kept: a run that was cut short goes on.
    `federation` prints how long merging takes beside Flower (`make bench-peers` installs it), and how far
    results are apart.

    Example: medloop bench kernels --json figures.json
    Example: medloop bench drift --streams 60 --plots figures
    Example: medloop bench learn --quick
    """
    if backend not in {"cpu", "cuda"}:
        raise ConfigurationError(f"--backend {backend}: choose cpu or cuda")
    if backend == "cuda" and what != "kernels":
        raise ConfigurationError(f"--backend cuda: only kernels run on a GPU, not {what}")
    folder = Path(__file__).parents[3] / "benchmarks"
    files = sorted((folder / what).glob("bench_*.py")) if what in BENCHMARKS else []
    files = [file for file in files if (file.stem == "bench_cuda") == (backend == "cuda")]
    if not files:
        have = [name for name in BENCHMARKS if list((folder / name).glob("bench_*.py"))]
        raise ConfigurationError(f"no benchmark of {what!r} here; there are: {', '.join(have) or 'none'}")
    if json is None:
        for file in files:
            _run_benchmark(file, options or ())
        return
    with_json = ["--json", *(options or ())]
    lines = [line for file in files for line in _run_benchmark(file, with_json, read=True).splitlines()]
    write_json([loads(line) for line in lines], json)


def _run_benchmark(file: Path, options: Sequence[str], *, read: bool = False) -> str:
    """Run one in a process of its own; where it is read, what it prints is returned and not shown."""
    command = [sys.executable, str(file), *options]
    output = subprocess.PIPE if read else None
    finished = subprocess.run(command, check=False, text=True, stdout=output)
    if finished.returncode:
        raise BenchmarkFailed(f"{file.name} failed with {finished.returncode}: its errors are above")
    return finished.stdout or ""


def _print_evaluations(figures: dict[str, dict[str, Any]]) -> None:
    table = Table(box=None)
    for column in ("", "n", "accuracy", "balanced accuracy", "AUC", "recall"):
        table.add_column(column, justify="left" if column in ("", "recall") else "right")
    for name, figure in figures.items():
        recall = ", ".join(f"{label} {100 * value:.1f} %" for label, value in figure["recall"].items())
        table.add_row(
            name,
            str(figure["n"]),
            *(_percent(figure[key]) for key in ("accuracy", "balanced_accuracy")),
            "" if figure["auc"] is None else f"{figure['auc']:.3f}",
            Text(recall),
        )
    Console().print(table)


def _percent(figure: dict[str, float]) -> str:
    return f"{100 * figure['value']:.1f} % ({100 * figure['low']:.1f}–{100 * figure['high']:.1f})"
