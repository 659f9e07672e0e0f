"""A site's first release: the configured model, unless the site has had a first release before."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog
from medloop_model import pretrained
from medloop_model.checkpoint import load_package, load_teacher
from medloop_model.errors import ModelError
from medloop_schemas import (
    Artifact,
    AuditRecorded,
    ConfigurationError,
    Event,
    ReleaseChanged,
    ReleaseStage,
)

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.publisher.audit import AuditChain, Decision
from medloop_services.publisher.settings import PublisherSettings
from medloop_services.publisher.state import PublisherState

TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Of a first release: it has no cause among the events, and a clock would make each start's another event."""

DIGEST_DIGITS = 12
"""Of a package's SHA-256, in its version."""

TEACHER = "teacher.safetensors"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FirstReleases:
    """Every site's first release, by site.

    Attributes:
        configured: what a site that has none yet gets.
    """

    configured: dict[str, ReleaseChanged]
    _found: dict[str, ReleaseChanged] = field(default_factory=dict)

    def apply(self, change: ReleaseChanged) -> None:
        """Take note of a first release; it stays, whatever is configured later."""
        if change.number != 0 or change.site_id in self._found:
            return
        self._found[change.site_id] = change
        wanted = self.configured.get(change.site_id)
        if wanted is not None and wanted.version != change.version:
            _log.warning(
                "MEDLOOP_PUBLISHER_MODEL is not used: the site has a first release already",
                site=change.site_id,
                configured=wanted.version,
                released=change.version,
            )

    def bootstrap(self) -> list[Event]:
        """Return the first releases that are still to be made, each with its audit record."""
        missing = [release for site, release in self.configured.items() if site not in self._found]
        return [event for release in missing for event in (release, _recorded(release)[1])]

    def initial(self, site_id: str) -> PublisherState:
        """Return a site's state after its first release; without one, candidates will be refused."""
        release = self._found.get(site_id, self.configured.get(site_id))
        if release is None:
            return PublisherState()
        return PublisherState(stable=release, next_release=1, audit=_recorded(release)[0])


def first_releases(settings: PublisherSettings, artifacts: ArtifactStore) -> FirstReleases:
    """Store the configured model and return the first release of every configured site.

    Raises:
        ConfigurationError: the model or its teacher can't be used.
        TransientError: the store is away.
    """
    model = settings.model or pretrained.path("pneumonia")
    teacher = settings.teacher or model.with_name(TEACHER)
    try:
        classes = load_package(model).architecture.classes
        stored_teacher = _stored_teacher(settings, teacher, artifacts)
    except ModelError as error:
        raise ConfigurationError(f"MEDLOOP_PUBLISHER_MODEL={model} can't be released: {error}") from error
    package = artifacts.put(model)
    return FirstReleases(
        {
            site: ReleaseChanged(
                time=TIME,
                site_id=site,
                number=0,
                version=f"{settings.family}-{package.sha256[:DIGEST_DIGITS]}",
                stage=ReleaseStage.STABLE,
                package=package,
                teacher=stored_teacher,
                classes=classes,
                reason="the first model of this site, as configured",
            )
            for site in settings.sites
        }
    )


def _recorded(release: ReleaseChanged) -> tuple[AuditChain, AuditRecorded]:
    return AuditChain().recorded(
        release.site_id,
        release.time,
        decision=Decision.RELEASED,
        version=release.version,
        reason=release.reason,
        evidence={"candidate_sha256": release.package.sha256},
    )


def _stored_teacher(settings: PublisherSettings, path: Path, artifacts: ArtifactStore) -> Artifact | None:
    if settings.teacher is None and not path.exists():
        return None
    load_teacher(path)
    return artifacts.put(path)
