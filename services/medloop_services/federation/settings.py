"""Settings of the federation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from medloop_schemas.identity import Identifier
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")


class FederationSettings(BaseSettings):
    """Who belongs to it, when a round is closed, and how updates are merged."""

    model_config = SettingsConfigDict(env_prefix="MEDLOOP_FEDERATION_", frozen=True, extra="ignore")

    sites: Annotated[dict[Identifier, str], NoDecode] = Field(
        default={}, description="SITE=PUBLIC_KEY of every member, separated by commas; see `medloop site-key`"
    )
    model: Path | None = Field(
        default=None,
        description="package that all sites start from; by default the pneumonia model that ships",
    )

    quorum: int = Field(default=3, ge=1, le=1000, description="sites whose updates close a round at once")
    minimum: int = Field(
        default=2,
        ge=1,
        le=1000,
        description="sites without which none is closed, so that no site is seen alone",
    )
    hours: float = Field(
        default=24.0, gt=0, le=10_000, description="hours of event time after which the minimum is enough"
    )

    aggregator: Literal["soft-vote", "trimmed-mean", "weighted-mean"] = Field(
        default="soft-vote", description="how updates are merged: soft-vote, trimmed-mean or weighted-mean"
    )
    least_agreement: float = Field(
        default=-0.05,
        ge=-1,
        le=1,
        description="a site is left out if its update's median cosine with the others', in the mean of its "
        "last three rounds, is less; -1 leaves out none",
    )
    trimmed: float = Field(
        default=0.2, ge=0, lt=0.5, description="share of the sites left out at either end of a trimmed mean"
    )
    clip: float = Field(
        default=1.5, ge=1, le=100, description="an update's norm is at most so many times the round's median"
    )
    most_samples: int = Field(
        default=4096,
        ge=1,
        le=10_000_000,
        description="images that a site counts for at most, whatever it says",
    )
    share_norms: bool = Field(
        default=False, description="whether norms and scales are shared as well; the same at every site"
    )

    @field_validator("sites", mode="before")
    @classmethod
    def _divided(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return dict(member.strip().rpartition("=")[::2] for member in value.split(",") if member.strip())

    @field_validator("sites")
    @classmethod
    def _with_keys(cls, value: dict[str, str]) -> dict[str, str]:
        for site, key in value.items():
            if not _PUBLIC_KEY.fullmatch(key):
                raise ValueError(
                    f"the key of {site} has to be 64 hexadecimal digits, as `medloop site-key` says"
                )
        return value

    @model_validator(mode="after")
    def _reachable(self) -> FederationSettings:
        if self.minimum > self.quorum:
            raise ValueError(
                f"MEDLOOP_FEDERATION_MINIMUM={self.minimum} is more than the quorum {self.quorum}"
            )
        return self
