"""`medloop fisher`: the monthly job that measures what matters in a released model, and tells every site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from medloop_schemas import ConfigurationError

from medloop_services.cli.decisions import decisions
from medloop_services.cli.options import Data, Json, Seed, tell, write_json
from medloop_services.cli.progress import counting_bar
from medloop_services.cli.sending import send
from medloop_services.replay.settings import ScenarioName

if TYPE_CHECKING:
    from medloop_model.fisher_file import FisherOrigin

    from medloop_services.replay.dataset import Dataset
    from medloop_services.replay.split import Split

DIGEST_DIGITS = 12
"""Of a package's SHA-256, in its version."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(fisher)


def fisher(
    model: Annotated[Path, typer.Argument(help="Folder or file of the model package that is served.")],
    data: Data = None,
    scenario: Annotated[
        ScenarioName | None,
        typer.Option("--scenario", help="Only images of before this scenario's change, of its first site."),
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="Images to look at, drawn from the training images.")
    ] = 1024,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file. Default: fisher.safetensors beside the model.")
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Store the file in MEDLOOP_ARTIFACTS and tell every site.")
    ] = False,
    json: Json = None,
) -> None:
    """Measure the Fisher information of a model: how much its answers depend on each weight.

    While a model is adapted, elastic weight consolidation (EWC) holds each weight back by its Fisher
    information, so that what matters at home moves least. A package brings its own, from when it was trained;
    measure it again, monthly say, when the representative images have changed or there are more. Labels are
    not needed. A thousand 28 px images take some seconds on a core.

    The file holds for this package alone: its SHA-256 is in it, and an adaptation of any other refuses it.

    --publish needs a broker (MEDLOOP_KAFKA) on which this package has been released. Learners use the newest
    measurement of the version that they adapt, from the next adaptation on; one under way keeps its own.

    Example: medloop fisher models/pneumonia --data pneumoniamnist.npz
    Example: medloop fisher models/pneumonia --data pneumoniamnist.npz --images 4096 --publish
    """
    from medloop_model.checkpoint import digest, load_package
    from medloop_model.fisher_file import FisherOrigin

    from medloop_services.fisher import measure_fisher, representative_images
    from medloop_services.pretraining import MODEL_FILE
    from medloop_services.replay.dataset import load_dataset

    file = model / MODEL_FILE if model.is_dir() else model
    provenance, sha256 = load_package(file).provenance, digest(file)
    versions = _released_versions(sha256) if publish else [_usual_version(provenance, sha256)]
    dataset = load_dataset(data, announce=tell)
    drawn = representative_images(_home(dataset, scenario), images, seed)
    options = f"--data {Path(data).name if data else dataset.name} --images {images} --seed {seed}"
    if scenario is not None:
        options += f" --scenario {scenario.value}"
    origin = FisherOrigin(
        base_version=versions[-1],
        base_sha256=sha256,
        data=dataset.name,
        data_sha256=dataset.digest,
        images=len(drawn),
        seed=seed,
        command=f"medloop fisher {model.name} {options}",
    )
    path = out or file.with_name("fisher.safetensors")
    with counting_bar("Fisher information") as progress:
        found = measure_fisher(file, drawn, origin, path, progress)
    tell(f"wrote {path}: {versions[-1]} on {len(drawn)} images of {dataset.name}, sha256 {found}")
    if publish:
        url = _publish(path, origin, versions)
        tell(f"published {url} for {', '.join(versions)}: used from the next adaptation on")
    write_json({"fisher": str(path), "sha256": found, "published": publish, **vars(origin)}, json)


def _home(dataset: Dataset, scenario: ScenarioName | None) -> Split:
    """What a model was trained on: no image that is ever streamed."""
    from medloop_services.bus.context import load_settings
    from medloop_services.replay.scenario import build_scenario
    from medloop_services.replay.settings import ScenarioSettings

    if scenario is None:
        return dataset.divide().training
    return build_scenario(dataset, scenario, load_settings(ScenarioSettings)).training_part


def _usual_version(provenance: Mapping[str, Any], sha256: str) -> str:
    """What a package is called where nobody has released it: its own name, or its base's."""
    family = provenance.get("name") or str(provenance.get("base_version", "model")).rsplit("-", 1)[0]
    return f"{family}-{sha256[:DIGEST_DIGITS]}"


def _released_versions(sha256: str) -> list[str]:
    """The versions under which a package has been released: sites may call the same bytes differently."""
    from medloop_schemas import ReleaseChanged

    versions = [each.version for each in decisions(ReleaseChanged) if each.package.sha256 == sha256]
    if not versions:
        raise ConfigurationError(
            f"no release is of the package with sha256 {sha256}, so nobody could use what is published; "
            "`medloop release list` prints the versions, `medloop release show` where their packages are"
        )
    return list(dict.fromkeys(versions))


def _publish(path: Path, origin: FisherOrigin, versions: Sequence[str]) -> str:
    """Store the file, tell of it under each version, and return its url."""
    from medloop_schemas import FisherMeasured

    from medloop_services.bus.artifacts import ArtifactStore
    from medloop_services.bus.context import load_settings
    from medloop_services.bus.settings import BusSettings

    fisher = ArtifactStore(load_settings(BusSettings).artifacts).put(path)
    for version in versions:
        send(
            FisherMeasured(
                time=datetime.now(UTC),
                base_version=version,
                base_sha256=origin.base_sha256,
                fisher=fisher,
                images=origin.images,
                data_sha256=origin.data_sha256,
                seed=origin.seed,
                command=origin.command,
            )
        )
    return fisher.url
