"""Settings of the online learner."""

from __future__ import annotations

from pathlib import Path

from medloop_schemas import Strategy
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LearnerSettings(BaseSettings):
    """How much is remembered, and how a model is adapted."""

    model_config = SettingsConfigDict(env_prefix="MEDLOOP_ONLINE_LEARNER_", frozen=True, extra="ignore")

    pending_images: int = Field(
        default=2048,
        ge=1,
        le=100_000,
        description="images a device may have waiting for labels or corrections",
    )
    pending_labels: int = Field(
        default=2048, ge=1, le=100_000, description="labels a device may have waiting for their images"
    )
    memory: int = Field(
        default=1024,
        ge=16,
        le=10_000,
        description="examples remembered between adaptations: half are the last ones, half of all domains",
    )
    open_memory: int = Field(
        default=4096, ge=64, le=50_000, description="examples remembered at most while an adaptation is open"
    )
    checkpoint_every: int = Field(
        default=4, ge=1, le=1000, description="updates after which a restart need not begin again"
    )
    batch_size: int = Field(default=16, ge=1, le=256, description="examples in one update")
    labels_shallow: int = Field(default=128, ge=1, description="new labels before a shallow-ewc candidate")
    labels_distil: int = Field(default=256, ge=1, description="new labels before a distil-all candidate")
    labels_expand: int = Field(default=96, ge=1, description="new labels before an expand-head candidate")
    attempts: int = Field(default=3, ge=1, le=20, description="candidates per request before it is given up")
    article: bool = Field(
        default=False,
        description="train by the source article's rules (EWC, distillation) instead of the measured ones",
    )
    seed: int = Field(default=0, ge=0, description="of batch order and rehearsal")
    federation: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9_.:/-]{0,128}$",
        description="the federation that the site learns in; empty for none",
    )
    federation_key: Path | None = Field(
        default=None, description="the site's private key, which its updates are signed with"
    )
    share_norms: bool = Field(
        default=False, description="whether the federation shares norms and scales as well, as it is set"
    )

    def labels_per_attempt(self, strategy: Strategy) -> int:
        """Return how many new labels a candidate needs, rounded up to whole updates."""
        wanted = {
            Strategy.SHALLOW_EWC: self.labels_shallow,
            Strategy.DISTIL_ALL: self.labels_distil,
            Strategy.EXPAND_HEAD: self.labels_expand,
        }[strategy]
        return -(-wanted // self.batch_size) * self.batch_size
