"""The merger on files: updates are read from the artifact store, and the merged model is put there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from medloop_model import pretrained
from medloop_model.checkpoint import ModelPackage, load_package, save_package
from medloop_model.errors import ModelError
from medloop_model.federation.aggregators import Aggregator
from medloop_model.federation.compression import decompress, largest_payload
from medloop_model.federation.errors import CorruptUpdate, OversizeUpdate
from medloop_model.federation.merging import MergeSettings, merge
from medloop_model.federation.update import Update, shared, shared_digest
from medloop_schemas import ConfigurationError, InvalidEvent, UpdateSubmitted

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.federation.rounds import MergedRound
from medloop_services.federation.settings import FederationSettings
from medloop_services.federation.state import SharedModel


@dataclass(frozen=True, slots=True)
class PackageMerger:
    """Merges updates of packages.

    Attributes:
        artifacts: where updates come from and merged models go.
        settings: how they are merged.
    """

    artifacts: ArtifactStore
    settings: FederationSettings

    def read(self, submitted: UpdateSubmitted, base: SharedModel) -> Update:
        """Return the update that a site has sent.

        Raises:
            InvalidEvent: the payload is too large, broken, of another model, or not what the event says.
            TransientError: the store is away.
        """
        like = shared(self._load(base).latent, norms=self.settings.share_norms)
        try:
            most = largest_payload(sum(prod(tensor.shape) for tensor in like.values()))
            if submitted.payload.size > most:
                raise OversizeUpdate(submitted.payload.size, most)
            update = decompress(self.artifacts.fetch(submitted.payload).read_bytes(), like)
            if (update.base_sha256, update.samples) != (submitted.base_sha256, submitted.samples):
                raise CorruptUpdate("the payload names another base or number of images than its event")
        except ModelError as error:
            raise InvalidEvent(error.code, "payload", str(error)) from error
        return update

    def merge(
        self, base: SharedModel, updates: Mapping[str, Update], earlier: Mapping[str, Sequence[float]]
    ) -> MergedRound:
        """Store what sites have learned together: shared weights and Fisher information, as a package.

        Raises:
            TransientError: the store is away.
        """
        before = self._load(base)
        merged = merge(
            before,
            list(updates.values()),
            merge_settings(self.settings),
            [earlier.get(site, ()) for site in updates],
        )
        package = ModelPackage(
            before.architecture,
            latent=merged.latent,
            fisher=merged.fisher,
            provenance={"sites": len(updates), "merged_from": base.shared_sha256},
        )
        with tempfile.TemporaryDirectory(prefix="medloop-merged-") as folder:
            path = Path(folder) / "merged.safetensors"
            save_package(package, path)
            stored = self.artifacts.put(path)
        return MergedRound(
            SharedModel(
                package=stored,
                shared_sha256=shared_digest(merged.latent, norms=self.settings.share_norms),
            ),
            clipped=tuple(site for site, short in zip(updates, merged.clipped, strict=True) if short),
            agreement=dict(zip(updates, merged.agreement, strict=True)),
            opposed=tuple(site for site, out in zip(updates, merged.opposed, strict=True) if out),
        )

    def _load(self, base: SharedModel) -> ModelPackage:
        return load_package(self.artifacts.fetch(base.package), parts=("latent",))


def merge_settings(settings: FederationSettings) -> MergeSettings:
    """The settings of a merge, which the model package doesn't read from the environment."""
    return MergeSettings(
        aggregator=Aggregator(settings.aggregator),
        least_agreement=settings.least_agreement,
        trimmed=settings.trimmed,
        clip=settings.clip,
        most_samples=settings.most_samples,
        norms=settings.share_norms,
    )


def first_base(settings: FederationSettings, artifacts: ArtifactStore) -> SharedModel:
    """Store the configured model, which the first round starts from.

    Raises:
        ConfigurationError: the model can't be used.
        TransientError: the store is away.
    """
    model = settings.model or pretrained.path("pneumonia")
    try:
        latent = load_package(model, parts=("latent",)).latent
    except ModelError as error:
        raise ConfigurationError(f"MEDLOOP_FEDERATION_MODEL={model} can't be merged into: {error}") from error
    return SharedModel(
        package=artifacts.put(model), shared_sha256=shared_digest(latent, norms=settings.share_norms)
    )
