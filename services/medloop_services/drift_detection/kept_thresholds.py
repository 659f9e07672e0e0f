"""Keeps calibrated thresholds beside the package that they were made for: a restart needs no simulation.

They follow from the package and the settings alone, so a file that is lost or damaged costs seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import structlog
from medloop_model.statistics import Reference

from medloop_services.drift_detection.detectors.detector import FloatArray
from medloop_services.drift_detection.panel import Panel
from medloop_services.drift_detection.settings import DriftDetectionSettings

RULE = 1
"""Raised when the same reference and settings begin to give other thresholds."""

_log = structlog.get_logger(__name__)


def calibrated_once(package: Path, reference: Reference, settings: DriftDetectionSettings) -> Panel:
    """Return a package's panel, with the thresholds that lie beside it, or else calibrated and kept there.

    Args:
        package: file of that content, for as long as it has that name.
        reference: the package's.
        settings: of the service.
    """
    file = package.with_name(f"{package.stem}.{_digest(settings)}.thresholds.json")
    try:
        return Panel.with_thresholds(reference, settings, _read(file))
    except (OSError, ValueError, TypeError, AttributeError):  # not there, or damaged
        panel = Panel.calibrated(reference, settings)
    _write(file, {detector.name: detector.thresholds for detector in panel.detectors})
    return panel


def _digest(settings: DriftDetectionSettings) -> str:
    content = json.dumps([RULE, settings.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _read(file: Path) -> dict[str, FloatArray]:
    found = json.loads(file.read_text())
    return {name: np.array(values, np.float64) for name, values in found.items()}


def _write(file: Path, levels: dict[str, FloatArray]) -> None:
    arriving = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        arriving.write_text(json.dumps({name: values.tolist() for name, values in levels.items()}))
        arriving.replace(file)
    except OSError as error:
        arriving.unlink(missing_ok=True)
        _log.warning("thresholds are not kept", file=str(file), reason=str(error))
