"""Settings of inference."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class InferenceSettings(BaseSettings):
    """How images are served."""

    model_config = SettingsConfigDict(env_prefix="MEDLOOP_INFERENCE_", frozen=True, extra="ignore")

    batch_images: int = Field(default=32, ge=1, le=1024, description="images in one forward pass, at most")
    models_kept: int = Field(
        default=4,
        ge=2,
        le=64,
        description="model versions kept in memory, the least recently used goes first",
    )
