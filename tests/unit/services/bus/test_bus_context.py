from __future__ import annotations

from pathlib import Path

import pytest
from medloop_schemas import ConfigurationError
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context, load_settings
from medloop_services.bus.settings import BusSettings
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ToySettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="MEDLOOP_TOY_", frozen=True)

    window: int = Field(default=64, ge=16, le=512, description="images a window")


def context(tmp_path: Path, **overrides: object) -> Context:
    return Context(ArtifactStore(str(tmp_path)), overrides)


def test_settings_come_from_overrides_then_environment_then_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert context(tmp_path).load(ToySettings).window == 64
    monkeypatch.setenv("MEDLOOP_TOY_WINDOW", "32")
    assert context(tmp_path).load(ToySettings).window == 32
    assert context(tmp_path, MEDLOOP_TOY_WINDOW=128).load(ToySettings).window == 128


def test_a_bad_value_names_variable_value_and_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLOOP_TOY_WINDOW", "8")
    with pytest.raises(ConfigurationError) as refused:
        context(tmp_path).load(ToySettings)
    text = str(refused.value)
    assert "MEDLOOP_TOY_WINDOW='8'" in text
    assert "≥ 16" in text
    assert "≤ 512" in text
    assert "images a window" in text


@pytest.mark.parametrize("servers", ["nowhere", "host:port", "host:9092,", "ho st:9092"])
def test_bootstrap_servers_are_checked_before_joining(servers: str) -> None:
    with pytest.raises(ConfigurationError, match="MEDLOOP_KAFKA"):
        load_settings(BusSettings, {"MEDLOOP_KAFKA": servers})


class ListSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="MEDLOOP_TOY_")

    detectors: tuple[str, ...] = ("cusum",)


def test_a_list_that_is_no_json_names_its_variable_and_how_to_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDLOOP_TOY_DETECTORS", "cusum,mmd")
    with pytest.raises(ConfigurationError, match=r"MEDLOOP_TOY_DETECTORS: .* a list is JSON"):
        context(tmp_path).load(ListSettings)
    monkeypatch.setenv("MEDLOOP_TOY_DETECTORS", '["cusum", "mmd"]')
    assert context(tmp_path).load(ListSettings).detectors == ("cusum", "mmd")


def test_a_port_that_there_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLOOP_KAFKA", "kafka:9092,kafka:99092")
    with pytest.raises(ConfigurationError, match="kafka:99092: a port is at most 65535"):
        load_settings(BusSettings)
