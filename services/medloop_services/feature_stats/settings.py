"""Settings of feature_stats: `MEDLOOP_FEATURE_STATS_*`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class FeatureStatsSettings(BaseSettings):
    """How images are gathered into micro-batches, and how long a half of a pair is waited for."""

    model_config = SettingsConfigDict(env_prefix="MEDLOOP_FEATURE_STATS_", frozen=True, extra="ignore")

    batch_images: int = Field(default=16, ge=1, le=256, description="images in a micro-batch")
    pending_images: int = Field(
        default=4096, ge=16, le=1_000_000, description="images of a device that may wait for their prediction"
    )
    pending_predictions: int = Field(
        default=256, ge=1, le=100_000, description="predictions of a device that may wait for their image"
    )
