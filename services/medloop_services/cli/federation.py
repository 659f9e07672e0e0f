"""`medloop simulate --sites N` and `medloop site-key`: hospitals that learn together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from medloop_schemas import ConfigurationError
from rich.console import Console
from rich.table import Table

from medloop_services.cli.options import tell, write_json
from medloop_services.cli.progress import training_bar

if TYPE_CHECKING:
    from medloop_services.federating.comparison import Row

IMAGES_A_SITE = 96
SEVERITY = 3
BATCH_SIZE = 16
REMEMBERED = 32
"""Images that come with the base."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("site-key")(site_key)


def site_key(
    out: Annotated[Path, typer.Option("--out", help="File for the private key; it stays at the site.")],
) -> None:
    """Make the key that a site signs its updates with, and print the half that the federation knows it by.

    Example: medloop site-key --out keys/ash.pem
    """
    from medloop_model.federation.signature import create_key

    try:
        public = create_key(out)
    except FileExistsError:
        raise ConfigurationError(f"--out {out}: there is a file already, and no key is overwritten") from None
    typer.echo(public)
    tell(f"{out} is private. In MEDLOOP_FEDERATION_SITES, for a site named ash: ash={public}")


def federate(
    data: str | None,
    model: Path | None,
    *,
    sites: int,
    non_iid: float,
    poisoned: int,
    rounds: int,
    seed: int,
    json: Path | None,
) -> None:
    """Compare hospitals alone, federated and pooled; prints accuracy per site and on the union.

    Raises:
        ConfigurationError: as many poisoned sites as there are sites.
        DatasetError: too few images.
        ModelError: the model can't be used for this data.
    """
    from medloop_model import pretrained
    from medloop_model.checkpoint import load_package
    from medloop_model.errors import ShapeError
    from medloop_model.federation.merging import MergeSettings

    from medloop_services.bus.cache import cache_directory
    from medloop_services.federating.arms import Arms
    from medloop_services.federating.comparison import compare
    from medloop_services.federating.hospitals import draw_hospitals, few_of_home
    from medloop_services.federating.local_training import LocalTraining, plan_for
    from medloop_services.pretraining import MODEL_FILE
    from medloop_services.replay.dataset import load_dataset

    if poisoned >= sites:
        raise ConfigurationError(f"--poisoned {poisoned}: leave at least one of {sites} sites honest")
    dataset = load_dataset(data, announce=tell)
    path = model or pretrained.path("pneumonia")
    base = load_package(path / MODEL_FILE if path.is_dir() else path, parts=("packed", "latent", "fisher"))
    if base.architecture.classes != dataset.class_names:
        raise ShapeError(
            f"the model knows {base.architecture.classes}, the data {dataset.class_names}: "
            "name a --model that was trained on this data (`medloop pretrain`)"
        )
    hospitals = draw_hospitals(dataset, sites, non_iid, images=IMAGES_A_SITE, severity=SEVERITY, seed=seed)
    for hospital in hospitals:
        mix = ", ".join(
            f"{100 * share:.0f} % {name}"
            for name, share in zip(dataset.class_names, hospital.mix, strict=True)
        )
        tell(f"{hospital.name}: {len(hospital.training)} images, {hospital.scanner}: {mix}")
    with training_bar() as report:
        training = LocalTraining(
            cache_directory() / "federating", few_of_home(dataset, REMEMBERED, seed), BATCH_SIZE, report
        )
        arms = Arms(base, hospitals, plan_for(base, seed), rounds, training)
        rows = compare(arms, MergeSettings(), poisoned)
    names = [hospital.name for hospital in hospitals[poisoned:]]
    _print(rows, names)
    write_json(
        {
            "data": dataset.source,
            "sites": {
                each.name: {"images": len(each.training), "scanner": each.scanner, "mix": each.mix}
                for each in hospitals
            },
            "non_iid": non_iid,
            "poisoned": poisoned,
            "rounds": rounds,
            "seed": seed,
            "accuracy": {
                row.name: dict(zip(names, row.accuracy, strict=True)) | {"union": row.union} for row in rows
            },
        },
        json,
    )


def _print(rows: list[Row], sites: list[str]) -> None:
    table = Table(box=None)
    table.add_column("accuracy %")
    for site in (*sites, "union"):
        table.add_column(site, justify="right")
    for row in rows:
        table.add_row(row.name, *(f"{100 * value:.1f}" for value in (*row.accuracy, row.union)))
    Console().print(table)
