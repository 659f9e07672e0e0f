"""Settings of the publisher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from medloop_schemas.identity import Identifier
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class PublisherSettings(BaseSettings):
    """What is released first, and what a candidate has to show."""

    model_config = SettingsConfigDict(env_prefix="MEDLOOP_PUBLISHER_", frozen=True, extra="ignore")

    sites: Annotated[tuple[Identifier, ...], NoDecode] = Field(
        default=("ward",), min_length=1, description="sites served, separated by commas"
    )
    model: Path | None = Field(
        default=None, description="package released first; by default the pneumonia model that ships"
    )
    teacher: Path | None = Field(
        default=None,
        description="its full-precision teacher; by default teacher.safetensors beside the package",
    )
    family: Identifier = Field(default="ward", description="first part of the first version's name")

    memory: int = Field(default=512, ge=32, le=10_000, description="held-back examples remembered")
    studies: int = Field(
        default=4096, ge=0, le=100_000, description="studies remembered as possibly trained on"
    )

    min_new: int = Field(default=24, ge=1, description="held-back new examples before a candidate is judged")
    min_old: int = Field(default=24, ge=0, description="held-back old examples without which none may pass")
    confidence: float = Field(
        default=0.8, gt=0.5, lt=1, description="one-sided, of the gain shown and of the loss not shown"
    )
    tolerance: float = Field(
        default=0.02, ge=0, le=1, description="balanced accuracy that may be lost on old examples"
    )
    calibration_tolerance: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="by how much the expected calibration error may surely grow, on new or old examples",
    )

    canary_fraction: float = Field(
        default=0.25, gt=0, le=1, description="share of the affected devices that try a version first"
    )
    canary_examples: int = Field(default=24, ge=1, description="labelled canary images before a decision")
    canary_tolerance: float = Field(
        default=0.05, ge=0, le=1, description="accuracy the canary may fall short of its base on its images"
    )
    approval: bool = Field(
        default=False,
        description="whether a person has to approve a tried version (`medloop release approve`) "
        "before it serves every device",
    )

    @field_validator("sites", mode="before")
    @classmethod
    def _divided(cls, value: Any) -> Any:
        return [site.strip() for site in value.split(",")] if isinstance(value, str) else value
