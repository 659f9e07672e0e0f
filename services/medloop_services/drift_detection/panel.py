"""All detectors of one model version, calibrated on its reference, and what they remember of one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from medloop_model.statistics import Reference
from medloop_schemas import DetectorReading, StatsMeasured
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medloop_services.drift_detection.accuracy import MARGIN, AccuracyState, ExpectedAccuracy
from medloop_services.drift_detection.baseline import Baseline
from medloop_services.drift_detection.calibration import thresholds
from medloop_services.drift_detection.detectors.adwin import Adwin
from medloop_services.drift_detection.detectors.class_mix import ClassMix
from medloop_services.drift_detection.detectors.cusum import Cusum
from medloop_services.drift_detection.detectors.detector import Detector, FloatArray, Images
from medloop_services.drift_detection.detectors.e_process import EProcess
from medloop_services.drift_detection.detectors.kernel_cusum import KernelCusum
from medloop_services.drift_detection.detectors.kolmogorov_smirnov import KolmogorovSmirnov
from medloop_services.drift_detection.detectors.kswin import Kswin
from medloop_services.drift_detection.detectors.label_error import LabelError, LabelErrorState
from medloop_services.drift_detection.detectors.mewma import Mewma
from medloop_services.drift_detection.detectors.online_discrepancy import OnlineDiscrepancy
from medloop_services.drift_detection.detectors.page_hinkley import PageHinkley
from medloop_services.drift_detection.detectors.sensor import Sensor, SensorState
from medloop_services.drift_detection.detectors.window_discrepancy import WindowDiscrepancy
from medloop_services.drift_detection.memory import Packed, packed, unpacked
from medloop_services.drift_detection.settings import DriftDetectionSettings


@dataclass(frozen=True)
class Known:
    """What a detector is fitted to.

    Attributes:
        baseline: of the model version.
        images: the reference's, as one stream.
        labels: (n,) their classes.
        settings: of the service.
    """

    baseline: Baseline
    images: Images
    labels: NDArray[np.int64]
    settings: DriftDetectionSettings


DETECTORS: Mapping[str, Callable[[Known], Detector]] = {
    "cusum": lambda known: Cusum.fitted(
        known.baseline.scalars, known.images, known.labels, known.settings.cusum_slack
    ),
    "mewma": lambda known: Mewma.fitted(known.baseline.scalars, known.images, known.settings.average_weight),
    "mmd": lambda known: OnlineDiscrepancy.fitted(
        known.images, known.settings.average_weight, known.settings.seed
    ),
    "ks": lambda known: KolmogorovSmirnov.fitted(
        known.baseline.scalars, known.images, known.settings.window_images
    ),
    "prior": lambda known: ClassMix.fitted(known.images, known.labels),
    "adwin": lambda known: Adwin.fitted(
        known.baseline.scalars, known.settings.adwin_scalars, known.settings.adwin_delta
    ),
    "page-hinkley": lambda known: PageHinkley.fitted(
        known.baseline.scalars, known.settings.page_hinkley_scalars, known.settings.page_hinkley_slack
    ),
    "kswin": lambda known: Kswin.fitted(
        known.baseline.scalars,
        known.settings.kswin_scalars,
        known.settings.kswin_window,
        known.settings.kswin_newest,
        known.settings.seed,
    ),
    "mmd-window": lambda known: WindowDiscrepancy.fitted(
        known.images, known.settings.window_images, known.settings.seed
    ),
    "kernel-cusum": lambda known: KernelCusum.fitted(
        known.images, known.settings.recent_images, known.settings.seed
    ),
    "e-process": lambda known: EProcess.fitted(
        known.baseline.scalars, known.images, known.settings.rank_tolerance
    ),
}
"""How each is fitted, by its name; the settings choose among them."""


class PanelState(BaseModel):
    """What the detectors remember of one device under one model version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memories: dict[str, dict[str, Packed]]
    """By detector."""
    recent: dict[str, Packed]
    """The latest images, standardised."""
    labels: LabelErrorState = LabelErrorState()
    sensor: SensorState = SensorState()
    accuracy: AccuracyState = AccuracyState()
    images_seen: int = 0
    labels_seen: int = 0
    last_sequence: int = -1


@dataclass(frozen=True)
class Fitted:
    """Detectors of images without thresholds.

    Attributes:
        baseline: what they hold images against.
        detectors: those that the settings name.
        window: recent images that are kept.
    """

    baseline: Baseline
    detectors: tuple[Detector, ...]
    window: int

    @classmethod
    def to(cls, reference: Reference, settings: DriftDetectionSettings) -> Fitted:
        """Return the detectors that a reference makes."""
        baseline = Baseline.of(reference)
        known = Known(baseline, baseline.of_reference(reference), reference.labels, settings)
        detectors = [DETECTORS[name](known) for name in settings.detectors]
        # One that watches named scalars has nothing to watch where the reference lacks them all.
        watching = tuple(detector for detector in detectors if detector.channels.layers)
        return cls(baseline, watching, settings.recent_images)

    def seen(self, reference: Reference) -> Images:
        """Return the images of a reference, standardised, as one stream."""
        return self.baseline.of_reference(reference)


@dataclass(frozen=True)
class Panel:
    """The detectors of one model version.

    Attributes:
        baseline: what they hold images against.
        detectors: of images.
        window: recent images that are kept.
        label_error: of late labels.
        sensor: of faults that make images worthless.
        accuracy: that is expected without labels; None where the reference can't tell.
    """

    baseline: Baseline
    detectors: tuple[Detector, ...]
    window: int
    label_error: LabelError
    sensor: Sensor
    accuracy: ExpectedAccuracy | None

    @classmethod
    def calibrated(cls, reference: Reference, settings: DriftDetectionSettings) -> Panel:
        """Return detectors that keep the settings' false-alarm contract on images like the reference's."""
        levels = thresholds(
            reference,
            lambda resample: Fitted.to(resample, settings),
            settings.images_per_alarm,
            settings.seed,
        )
        return cls.with_thresholds(reference, settings, levels)

    @classmethod
    def with_thresholds(
        cls, reference: Reference, settings: DriftDetectionSettings, levels: Mapping[str, FloatArray]
    ) -> Panel:
        """Return detectors with thresholds that they have been calibrated to, by their names.

        Raises:
            ValueError: a detector's thresholds are missing, or not one a channel.
        """
        fitted = Fitted.to(reference, settings)
        for each in fitted.detectors:
            if levels.get(each.name, np.zeros(0)).shape != each.thresholds.shape:
                raise ValueError(
                    f"{each.name} watches {len(each.thresholds)} channels and needs as many thresholds"
                )
        return cls(
            baseline=fitted.baseline,
            detectors=tuple(replace(each, thresholds=levels[each.name]) for each in fitted.detectors),
            window=settings.recent_images,
            label_error=LabelError.calibrated(
                wrong=reference.wrong,
                predicted=reference.predicted,
                classes=reference.probabilities.shape[1],
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
        nothing = np.zeros((1, 0, 1))
        return PanelState(
            memories={detector.name: packed(detector.start(1)) for detector in self.detectors},
            recent=_packed_images(Images(nothing, nothing, nothing)),
        )

    def after_images(self, state: PanelState, event: StatsMeasured) -> PanelState:
        """Return the state after a micro-batch.

        Raises:
            InvalidEvent: the statistics are not the ones that the reference has.
        """
        after = self.after(state, self.baseline.batch(event), event.last_sequence)
        return after.model_copy(
            update={
                "sensor": self.sensor.update(state.sensor, event),
                "accuracy": self._accuracy_after(state.accuracy, event),
            }
        )

    def _accuracy_after(self, state: AccuracyState, event: StatsMeasured) -> AccuracyState:
        if self.accuracy is None:
            return state
        return self.accuracy.update(state, [image.decision[MARGIN] for image in event.images])

    def after(self, state: PanelState, images: Images, last_sequence: int) -> PanelState:
        """Return the state after a micro-batch that has been standardised.

        Args:
            state: before it.
            images: of one stream.
            last_sequence: of the last of them.
        """
        recent = _recent_of(state)
        return state.model_copy(
            update={
                "memories": {
                    detector.name: packed(detector.advance(unpacked(state.memories[detector.name]), images))
                    for detector in self.detectors
                },
                "recent": _packed_images(recent.then(images, self.window) if len(recent) else images),
                "images_seen": state.images_seen + len(images),
                "last_sequence": last_sequence,
            }
        )

    def after_label(
        self, state: PanelState, predicted: int, label: int, name: str, sequence: int
    ) -> PanelState:
        """Return the state after a label; arguments as in `LabelError.update`."""
        labels = self.label_error.update(state.labels, predicted, label, name, sequence)
        return state.model_copy(update={"labels": labels, "labels_seen": state.labels_seen + 1})

    def readings(self, state: PanelState) -> tuple[DetectorReading, ...]:
        """Return where every detector stands, at most one reading a detector and layer."""
        others = (*self.sensor.readings(state.sensor), *self.label_error.readings(state.labels))
        if not state.images_seen:
            return others
        recent = _recent_of(state)
        readings = [reading for each in self.detectors for reading in _readings(each, state, recent)]
        return (*readings, *others)

    def shifted_share(self, state: PanelState) -> float:
        """Return the share of the recent images that have changed, as far as one data scalar shows it."""
        for detector in self.detectors:
            if isinstance(detector, KolmogorovSmirnov) and state.images_seen:
                return detector.shifted_share(detector.statistics({}, _recent_of(state))[0])
        return 0.0


def _readings(detector: Detector, state: PanelState, recent: Images) -> list[DetectorReading]:
    memory = unpacked(state.memories[detector.name])
    statistics = detector.statistics(memory, recent)[0]
    alarmed = statistics > detector.thresholds
    worst = detector.channels.worst_by_layer(statistics / detector.thresholds)
    return [
        DetectorReading(
            detector=detector.name,
            layer=layer,
            statistic=detector.channels.statistics[channel],
            value=float(statistics[channel]),
            threshold=float(detector.thresholds[channel]),
            alarmed=bool(alarmed[channel]),
            since_sequence=_first_of(state, detector.images_since(memory, recent, channel))
            if alarmed[channel]
            else None,
        )
        for layer, channel in worst.items()
    ]


def _first_of(state: PanelState, images: int) -> int:
    """Return the sequence of the first of so many latest images."""
    return max(0, state.last_sequence - images + 1)


def _packed_images(images: Images) -> dict[str, Packed]:
    return packed(
        {"scores": images.scores, "features": images.features, "probabilities": images.probabilities}
    )


def _recent_of(state: PanelState) -> Images:
    return Images(**unpacked(state.recent))
