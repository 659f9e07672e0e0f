"""The bus's own settings, shared by every service: `MEDLOOP_KAFKA`, `MEDLOOP_ARTIFACTS`, …"""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BusSettings(BaseSettings):
    """How a process reaches the others and how patient it is."""

    model_config = SettingsConfigDict(env_prefix="MEDLOOP_", frozen=True, extra="ignore")

    kafka: str = Field(
        default="127.0.0.1:9092",
        pattern=r"^[^\s:,]+:\d{1,5}(,[^\s:,]+:\d{1,5})*$",
        description="bootstrap servers, host:port[,host:port…]",
    )
    artifacts: str = Field(
        default=".medloop/artifacts", min_length=1, description="fsspec url of a folder for model files"
    )
    health_port: int = Field(
        default=0, ge=0, le=65535, description="port of /health and /metrics; 0 picks a free one"
    )
    health_host: str = Field(default="127.0.0.1", description="address /health and /metrics listen on")
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    batch_events: int = Field(default=256, ge=1, le=10_000, description="events handled between two commits")
    batch_wait_ms: int = Field(default=200, ge=1, le=10_000, description="longest wait for a batch, ms")
    session_timeout_ms: int = Field(
        default=6_000,
        ge=1_000,
        le=300_000,
        description="a replica silent for so long loses its partitions, ms",
    )
    retry_first_s: float = Field(
        default=0.1, gt=0, le=60, description="first wait after a transient error, s"
    )
    retry_longest_s: float = Field(default=5.0, gt=0, le=600, description="longest such wait, s")
    unhandled_limit: int = Field(
        default=10, ge=1, description="unexpected errors in a row after which the service stops"
    )
    replica: str = Field(
        default="",
        pattern="^[A-Za-z0-9_.-]*$",
        description="stable name of this replica; a restart under it gets its partitions back at once",
    )
    drain_s: float = Field(default=20.0, gt=0, le=600, description="time to finish a batch on SIGTERM, s")
    replication: int = Field(default=1, ge=1, le=7, description="replicas of each topic that is created")
