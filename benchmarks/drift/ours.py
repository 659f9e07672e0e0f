"""medloop's own detectors, as drift_detection calibrates and runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from measured import Measured
from medloop_schemas import DetectorReading
from medloop_services.drift_detection.detectors.detector import Detector
from medloop_services.drift_detection.detectors.label_error import LabelError, LabelErrorState
from medloop_services.drift_detection.panel import Panel

PANEL = "medloop panel"
LABELS = "medloop labels"


class OneOfPanel:
    """One image detector of a panel, at the threshold that it has there.

    Args:
        panel: with its calibration.
        detector: one of its.
    """

    def __init__(self, panel: Panel, detector: Detector) -> None:
        self._alone = replace(panel, detectors=(detector,))
        self.reset()

    def reset(self) -> None:
        self.state = self._alone.initial()

    def update(self, rows: Measured) -> bool:
        self.state = self._alone.after(self.state, rows.as_images(), self.state.images_seen + len(rows) - 1)
        return alarmed(self._alone.readings(self.state))


class LabelPanel:
    """The detector of late labels, told each label as soon as its image comes.

    Args:
        detector: with its calibration.
        names: of the readers' classes.
    """

    def __init__(self, detector: LabelError, names: tuple[str, ...]) -> None:
        self._detector, self._names = detector, names
        self.reset()

    def reset(self) -> None:
        self.state, self._seen = LabelErrorState(), 0

    def update(self, rows: Measured) -> bool:
        for predicted, label in zip(rows.predicted.tolist(), rows.read.tolist(), strict=True):
            self.state = self._detector.update(self.state, predicted, label, self._names[label], self._seen)
            self._seen += 1
        return alarmed(self._detector.readings(self.state))


def image_detectors(panel: Panel) -> dict[str, OneOfPanel]:
    """Return a panel's image detectors by name; the panel alarms when the first of them does."""
    return {f"medloop {detector.name}": OneOfPanel(panel, detector) for detector in panel.detectors}


def alarmed(readings: Sequence[DetectorReading]) -> bool:
    """Return whether any reading has crossed its threshold."""
    return any(reading.alarmed for reading in readings)
