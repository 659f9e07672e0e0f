"""Settings of drift_detection: `MEDLOOP_DRIFT_DETECTION_*`."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DETECTOR_NAMES = (
    "cusum",
    "mewma",
    "mmd",
    "ks",
    "prior",
    "adwin",
    "page-hinkley",
    "kswin",
    "mmd-window",
    "kernel-cusum",
    "e-process",
)

FEW_SCALARS = ("data.intensity", "data.noise", "data.sharpness", "decision.entropy")
"""What the detectors watch that hold a stream against its own past."""


class DriftDetectionSettings(BaseSettings):
    """What a false alarm may cost, and how much each detector looks at."""

    model_config = SettingsConfigDict(env_prefix="MEDLOOP_DRIFT_DETECTION_", frozen=True, extra="ignore")

    images_per_false_alarm: int = Field(
        default=5_000,
        ge=100,
        le=10_000_000,
        description="images between false alarms of a device, on average, all image detectors together",
    )
    images_per_week: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="images of a device in a week; given, false_alarms_per_week is the contract instead",
    )
    false_alarms_per_week: float = Field(
        default=0.1,
        gt=0,
        le=100,
        description="false alarms of a device in a week, where images_per_week is given",
    )
    labels_per_false_alarm: int = Field(
        default=5_000,
        ge=100,
        le=10_000_000,
        description="labels between false alarms of a device, on average",
    )
    detectors: tuple[str, ...] = Field(
        default=("cusum", "mewma", "mmd", "ks", "prior"),
        min_length=1,
        description="image detectors that share the false alarms; JSON list",
    )
    cusum_slack: float = Field(
        default=0.25, gt=0, le=2, description="shift that CUSUM lets pass, standard deviations"
    )
    adwin_delta: float = Field(default=0.002, gt=0, lt=1, description="ADWIN's confidence")
    average_weight: float = Field(
        default=0.05, gt=0, lt=1, description="of the latest image in the moving averages of MEWMA and MMD"
    )
    recent_images: int = Field(
        default=128, ge=16, le=1024, description="images that are remembered one by one"
    )
    adwin_scalars: tuple[str, ...] = Field(
        default=FEW_SCALARS, description="scalars that ADWIN watches; JSON list"
    )
    page_hinkley_scalars: tuple[str, ...] = Field(
        default=FEW_SCALARS, description="scalars that Page-Hinkley watches; JSON list"
    )
    page_hinkley_slack: float = Field(
        default=0.25, gt=0, le=2, description="shift that Page-Hinkley lets pass, standard deviations"
    )
    kswin_scalars: tuple[str, ...] = Field(
        default=FEW_SCALARS, description="scalars that KSWIN watches; JSON list"
    )
    kswin_window: int = Field(default=128, ge=32, le=1024, description="images in the window of KSWIN")
    kswin_newest: int = Field(
        default=32, ge=8, le=512, description="newest images that KSWIN compares, at most half of its window"
    )
    window_images: int = Field(
        default=64,
        ge=16,
        le=1024,
        description="images in the window of KS and of the windowed MMD, of the recent ones",
    )
    rank_tolerance: float = Field(
        default=0.1, ge=0, le=0.25, description="that the e-process lets a mean rank be off a half"
    )
    error_rise: float = Field(
        default=0.2, gt=0, lt=1, description="rise of the error rate that the label detector is tuned to"
    )
    label_window: int = Field(default=64, ge=8, le=4096, description="labels that a signal's evidence covers")
    labels_per_signal: int = Field(default=8, ge=1, le=4096, description="labels between two signals")
    pending_predictions: int = Field(
        default=4096, ge=16, le=1_000_000, description="predictions of a device that may wait for their label"
    )
    pending_labels: int = Field(
        default=512, ge=1, le=1_000_000, description="labels of a device that may wait for their prediction"
    )
    seed: int = Field(default=0, ge=0, description="of the bootstrap that sets the thresholds")

    @property
    def images_per_alarm(self) -> float:
        """The contract: images between false alarms."""
        if self.images_per_week is None:
            return self.images_per_false_alarm
        return self.images_per_week / self.false_alarms_per_week

    @model_validator(mode="after")
    def _kswin_has_enough_to_sample(self) -> DriftDetectionSettings:
        if 2 * self.kswin_newest > self.kswin_window:
            raise ValueError(f"kswin_newest is {self.kswin_newest}, more than half of kswin_window")
        return self

    @model_validator(mode="after")
    def _window_is_remembered(self) -> DriftDetectionSettings:
        if self.window_images > self.recent_images:
            raise ValueError(
                f"window_images is {self.window_images}, but only recent_images = {self.recent_images} are "
                "remembered: raise that, or lower this"
            )
        return self

    @field_validator("detectors")
    @classmethod
    def _known_ones(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(names) - set(DETECTOR_NAMES))
        if unknown:
            raise ValueError(f"there is no detector {unknown[0]!r}; choose of {', '.join(DETECTOR_NAMES)}")
        return names
