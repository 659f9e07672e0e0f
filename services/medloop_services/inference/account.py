"""What inference says of what it serves: each device's change of version, and where an older one serves."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog
from medloop_schemas import ImageAcquired, ReleaseChanged, ServingStage

from medloop_services.bus.health import Health
from medloop_services.inference.models import Chosen

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Account:
    """Compares what serves with what was released; says so on the health endpoint and in the log.

    Attributes:
        health: of the process.
    """

    health: Health = field(default_factory=Health)
    _version_of: dict[str, str] = field(default_factory=dict)

    def served(self, image: ImageAcquired, wanted: ReleaseChanged, stage: ServingStage, by: Chosen) -> None:
        """An image is served by what was chosen where `wanted` is released."""
        cause = _cause(image.site_id, stage)
        if by.obstacle is None:
            self.health.clear(cause)
        else:
            self.health.degrade(
                cause,
                f"the package of {wanted.version} ({wanted.package.url}) can't be used: {by.obstacle}; "
                f"{by.release.version} goes on serving where it is {stage.value} at {image.site_id}",
            )
        before = self._version_of.get(image.device_id)
        if before != by.release.version:
            self._version_of[image.device_id] = by.release.version
            _log.info(
                "version swapped",
                event_id=by.release.event_id,
                site_id=image.site_id,
                device_id=image.device_id,
                image_id=image.image_id,
                version=by.release.version,
                before=before,
                stage=stage.value,
                reason=by.obstacle or by.release.reason,
            )

    def without_canary(self, site_id: str) -> None:
        """No version is on trial at a site: a canary that could not be loaded is missed no more."""
        self.health.clear(_cause(site_id, ServingStage.CANARY))


def _cause(site_id: str, stage: ServingStage) -> str:
    return f"{stage.value} version of {site_id}"
