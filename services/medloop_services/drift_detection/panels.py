"""Finds a model version's package and keeps the detectors calibrated on its reference."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from medloop_model.checkpoint import load_package
from medloop_model.errors import ModelError
from medloop_model.statistics import Reference
from medloop_schemas import InvalidEvent, TransientError

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.catalog import ReleaseCatalog
from medloop_services.drift_detection.kept_thresholds import calibrated_once
from medloop_services.drift_detection.panel import Panel
from medloop_services.drift_detection.settings import DriftDetectionSettings

KEPT = 8
"""Versions kept calibrated: some sites' stable and canary ones."""


@dataclass
class Panels:
    """Calibrates each version once; calling it with a version returns its panel."""

    catalog: ReleaseCatalog
    artifacts: ArtifactStore
    settings: DriftDetectionSettings
    _calibrated: OrderedDict[str, Panel] = field(default_factory=OrderedDict)

    def __call__(self, version: str) -> Panel:
        """Return a version's panel.

        Raises:
            TransientError: no release of it has been read yet, or the artifact store is away.
            InvalidEvent: its package is corrupt or has no monitoring reference.
        """
        if version not in self._calibrated:
            self._calibrated[version] = self._calibrate(version)
            if len(self._calibrated) > KEPT:
                self._calibrated.popitem(last=False)
        self._calibrated.move_to_end(version)
        return self._calibrated[version]

    def _calibrate(self, version: str) -> Panel:
        package = self.catalog.package_of(version)
        if package is None:
            raise TransientError(
                f"model version {version} is not among the releases read so far; waiting for it"
            )
        path = self.artifacts.fetch(package)
        try:
            reference = Reference.from_tensors(load_package(path, parts=("reference",)).reference)
        except (ModelError, ValueError) as error:
            raise InvalidEvent("model", "model_version", f"{version}: {error}") from error
        return calibrated_once(path, reference, self.settings)
