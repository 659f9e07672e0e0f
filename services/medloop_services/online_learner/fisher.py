"""Which Fisher information an adaptation starts with: the newest measured one that is of its base.

What the topic offers is checked against the base that the site serves. What is refused is logged with its
reason, and the one before it goes on: an older measurement, or else what came with the package itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from medloop_model.checkpoint import load_package
from medloop_model.errors import FisherOfAnotherBase, ModelError
from medloop_model.fisher_file import load_fisher
from medloop_schemas import AdaptationRequested, Artifact, FisherMeasured, InvalidEvent, ReleaseChanged

from medloop_services.bus.artifacts import ArtifactStore

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FisherChoice:
    """Chooses once, when an adaptation opens; the choice then stands in the adaptation's state.

    Attributes:
        measured: a version's measurements up to a time, the newest first, as `FisherCatalog.measured`.
        artifacts: where their files and the base's package are.
    """

    measured: Callable[[str, datetime], Sequence[FisherMeasured]]
    artifacts: ArtifactStore

    def __call__(self, request: AdaptationRequested, base: ReleaseChanged) -> Artifact | None:
        """Return the newest usable measurement of the base, or None for what its own package says.

        Raises:
            TransientError: a store is away.
        """
        for each in self.measured(base.version, request.time):
            try:
                check_fisher(each, base, self.artifacts)
            except (ModelError, InvalidEvent) as error:
                log.warning(
                    "Fisher information refused; the one before it goes on",
                    site=base.site_id,
                    base_version=base.version,
                    fisher=each.event_id,
                    code=error.code,
                    reason=str(error),
                )
            else:
                return each.fisher
        return None


def check_fisher(measured: FisherMeasured, base: ReleaseChanged, artifacts: ArtifactStore) -> None:
    """Refuse Fisher information that is not of a base.

    Raises:
        FisherOfAnotherBase: the event or its file names another package than the base's.
        UnfitFisher: its tensors' names, shapes or values don't fit the base.
        CorruptArtifact: the file's bytes are not the ones the event names.
        CorruptCheckpoint, PickledCheckpoint: the file can't be read.
        TransientError: a store is away.
    """
    if measured.base_sha256 != base.package.sha256:
        raise FisherOfAnotherBase(measured.fisher.url, base.package.sha256, measured.base_sha256)
    path = artifacts.fetch(measured.fisher)
    package = load_package(artifacts.fetch(base.package), parts=("latent",))
    load_fisher(path, package, base.package.sha256)
