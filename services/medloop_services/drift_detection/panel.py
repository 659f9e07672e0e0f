"""All detectors of one model version, calibrated on its reference, and what they remember of one device."""

from __future__ import annotations

from dataclasses import dataclass

from medloop_model.statistics import Reference
from medloop_schemas import DetectorReading, StatsMeasured
from pydantic import BaseModel, ConfigDict

from medloop_services.drift_detection.accuracy import MARGIN, AccuracyState, ExpectedAccuracy
from medloop_services.drift_detection.baseline import Baseline
from medloop_services.drift_detection.detectors.adwin import Adwin, AdwinState
from medloop_services.drift_detection.detectors.cusum import Cusum, CusumState
from medloop_services.drift_detection.detectors.kolmogorov_smirnov import (
    KolmogorovSmirnov,
    KolmogorovSmirnovState,
)
from medloop_services.drift_detection.detectors.label_error import LabelError, LabelErrorState
from medloop_services.drift_detection.detectors.maximum_mean_discrepancy import (
    DiscrepancyState,
    MaximumMeanDiscrepancy,
)
from medloop_services.drift_detection.detectors.sensor import Sensor, SensorState
from medloop_services.drift_detection.settings import DriftDetectionSettings

IMAGE_DETECTORS = 4
"""CUSUM, ADWIN, KS and MMD share the allowance of false alarms equally."""

USUAL_BATCH = 16
"""Images between two tests of a window."""


class PanelState(BaseModel):
    """What the detectors remember of one device under one model version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cusum: CusumState
    adwin: AdwinState
    ks: KolmogorovSmirnovState
    mmd: DiscrepancyState
    labels: LabelErrorState
    sensor: SensorState = SensorState()
    accuracy: AccuracyState = AccuracyState()
    images_seen: int = 0
    labels_seen: int = 0


@dataclass(frozen=True)
class Panel:
    """The detectors of one model version."""

    baseline: Baseline
    cusum: Cusum
    adwin: Adwin
    ks: KolmogorovSmirnov
    mmd: MaximumMeanDiscrepancy
    label_error: LabelError
    sensor: Sensor
    accuracy: ExpectedAccuracy | None

    @classmethod
    def calibrated(cls, reference: Reference, settings: DriftDetectionSettings) -> Panel:
        """Return detectors that keep the false-alarm rate of the settings on images like the reference's."""
        baseline = Baseline.of(reference)
        images_per_alarm = settings.images_per_false_alarm * IMAGE_DETECTORS
        window_false_alarm = min(USUAL_BATCH / images_per_alarm, 0.5)
        return cls(
            baseline=baseline,
            cusum=Cusum.calibrated(
                baseline.scalars,
                baseline.reference_scores,
                settings.cusum_slack,
                images_per_alarm,
                settings.seed,
            ),
            adwin=Adwin.watching(
                settings.adwin_scalars, baseline.scalars, settings.adwin_delta, settings.adwin_images
            ),
            ks=KolmogorovSmirnov(
                baseline.scalars, baseline.reference_scores, settings.window_images, window_false_alarm
            ),
            mmd=MaximumMeanDiscrepancy.calibrated(
                baseline.reference_features, settings.window_images, window_false_alarm, settings.seed
            ),
            label_error=LabelError.calibrated(
                wrong=reference.wrong,
                predicted=reference.predicted,
                classes=len(reference.class_mix),
                rise=settings.error_rise,
                window=settings.label_window,
                labels_per_alarm=settings.labels_per_false_alarm,
                seed=settings.seed,
            ),
            sensor=Sensor.of(reference),
            accuracy=ExpectedAccuracy.of(reference),
        )

    def initial(self) -> PanelState:
        """Return what is remembered before the first image."""
        return PanelState(
            cusum=self.cusum.initial(),
            adwin=self.adwin.initial(),
            ks=self.ks.initial(),
            mmd=self.mmd.initial(),
            labels=LabelErrorState(),
        )

    def after_images(self, state: PanelState, event: StatsMeasured) -> PanelState:
        """Return the state after a micro-batch.

        Raises:
            InvalidEvent: the statistics are not the ones that the reference has.
        """
        batch = self.baseline.batch(event)
        return state.model_copy(
            update={
                "cusum": self.cusum.update(state.cusum, batch),
                "adwin": self.adwin.update(state.adwin, batch),
                "ks": self.ks.update(state.ks, batch),
                "mmd": self.mmd.update(state.mmd, batch),
                "sensor": self.sensor.update(state.sensor, event),
                "accuracy": self._accuracy_after(state.accuracy, event),
                "images_seen": state.images_seen + len(event.images),
            }
        )

    def _accuracy_after(self, state: AccuracyState, event: StatsMeasured) -> AccuracyState:
        if self.accuracy is None:
            return state
        return self.accuracy.update(state, [image.decision[MARGIN] for image in event.images])

    def after_label(
        self, state: PanelState, predicted: int, label: int, name: str, sequence: int
    ) -> PanelState:
        """Return the state after a label; arguments as in `LabelError.update`."""
        labels = self.label_error.update(state.labels, predicted, label, name, sequence)
        return state.model_copy(update={"labels": labels, "labels_seen": state.labels_seen + 1})

    def readings(self, state: PanelState) -> tuple[DetectorReading, ...]:
        """Return where every detector stands."""
        return (
            *self.cusum.readings(state.cusum),
            *self.ks.readings(state.ks),
            *self.mmd.readings(state.mmd),
            *self.adwin.readings(state.adwin),
            *self.label_error.readings(state.labels),
            *self.sensor.readings(state.sensor),
        )
