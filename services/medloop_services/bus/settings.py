"""The bus's own settings, shared by every service: `MEDLOOP_KAFKA`, `MEDLOOP_ARTIFACTS`, …"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MOST_PORT = 65_535


class BusSettings(BaseSettings):
    """How a process reaches the others and how patient it is."""

    model_config = SettingsConfigDict(env_prefix="MEDLOOP_", frozen=True, extra="ignore")

    kafka: str = Field(
        default="127.0.0.1:9092",
        pattern=r"^[^\s:,]+:\d{1,5}(,[^\s:,]+:\d{1,5})*$",
        description="bootstrap servers, host:port[,host:port…]",
    )
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="how the cluster is spoken to: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
    )
    kafka_ca_file: Path | None = Field(
        default=None, description="PEM file of whom to trust; else the system's certificate authorities"
    )
    kafka_cert_file: Path | None = Field(
        default=None, description="PEM file of the client certificate, where the cluster asks for one"
    )
    kafka_key_file: Path | None = Field(
        default=None, description="PEM file of its key, not encrypted, unless it is in the certificate's file"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="PLAIN", description="how a user is proved: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    kafka_username: str | None = Field(default=None, min_length=1, description="user, for SASL_…")
    kafka_password: SecretStr | None = Field(default=None, description="that user's password")
    artifacts: str = Field(
        default=".medloop/artifacts", min_length=1, description="fsspec url of a folder for model files"
    )
    health_port: int = Field(
        default=0, ge=0, le=65535, description="port of /health and /metrics; 0 picks a free one"
    )
    health_host: str = Field(default="127.0.0.1", description="address /health and /metrics listen on")
    log_level: str = Field(
        default="INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="least that is logged: DEBUG, INFO, WARNING or ERROR",
    )
    batch_events: int = Field(default=256, ge=1, le=10_000, description="events handled between two commits")
    batch_wait_ms: int = Field(default=200, ge=1, le=10_000, description="longest wait for a batch, ms")
    gather_ms: int = Field(
        default=200,
        ge=0,
        le=10_000,
        description="longest that the broker gathers events for a processor with a state, ms",
    )
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

    @property
    def encrypts(self) -> bool:
        """Whether the connection is by TLS."""
        return self.kafka_security.endswith("SSL")

    @property
    def signs_in(self) -> bool:
        """Whether the cluster wants a user name and a password."""
        return self.kafka_security.startswith("SASL_")

    @field_validator("kafka")
    @classmethod
    def _ports(cls, servers: str) -> str:
        for server in servers.split(","):
            if int(server.rpartition(":")[2]) > MOST_PORT:
                raise ValueError(f"{server}: a port is at most {MOST_PORT}")
        return servers

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.signs_in and (self.kafka_username is None or self.kafka_password is None):
            raise ValueError(
                f"MEDLOOP_KAFKA_SECURITY={self.kafka_security} needs MEDLOOP_KAFKA_USERNAME and "
                "MEDLOOP_KAFKA_PASSWORD"
            )
        files = (self.kafka_ca_file, self.kafka_cert_file, self.kafka_key_file)
        if any(files) and not self.encrypts:
            raise ValueError(
                "MEDLOOP_KAFKA_CA_FILE, …_CERT_FILE and …_KEY_FILE need "
                "MEDLOOP_KAFKA_SECURITY=SSL or SASL_SSL"
            )
        return self
