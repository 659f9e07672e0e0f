from __future__ import annotations

from pathlib import Path

import pytest
from medloop_model.federation.aggregators import Aggregator
from medloop_model.federation.merging import MergeSettings
from medloop_schemas import ConfigurationError
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import load_settings
from medloop_services.federation.merger import first_base, merge_settings
from medloop_services.federation.settings import FederationSettings

KEY = "0f" * 32


def loaded(**chosen: object) -> FederationSettings:
    return load_settings(
        FederationSettings, {f"MEDLOOP_FEDERATION_{name.upper()}": value for name, value in chosen.items()}
    )


def test_members_are_read_from_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLOOP_FEDERATION_SITES", f"ash={KEY}, birch={KEY},")
    assert load_settings(FederationSettings).sites == {"ash": KEY, "birch": KEY}
    monkeypatch.setenv("MEDLOOP_FEDERATION_SITES", "")
    assert load_settings(FederationSettings).sites == {}


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"sites": "ash"}, "SITE=PUBLIC_KEY"),
        ({"sites": "ash=12"}, "the key of ash has to be 64"),
        ({"sites": f"a b={KEY}"}, "MEDLOOP_FEDERATION_SITES"),
        ({"minimum": 4, "quorum": 3}, "MEDLOOP_FEDERATION_MINIMUM=4"),
        ({"aggregator": "mode"}, "MEDLOOP_FEDERATION_AGGREGATOR"),
        ({"trimmed": 0.5}, "MEDLOOP_FEDERATION_TRIMMED"),
    ],
)
def test_a_wrong_setting_is_named(chosen: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        loaded(**chosen)


def test_the_defaults_are_the_measured_ones() -> None:
    assert merge_settings(loaded()) == MergeSettings()


@pytest.mark.parametrize("aggregator", Aggregator)
def test_every_aggregator_can_be_chosen(aggregator: Aggregator) -> None:
    assert merge_settings(loaded(aggregator=aggregator.value)).aggregator is aggregator


def test_a_model_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no model")
    with pytest.raises(ConfigurationError, match=r"MEDLOOP_FEDERATION_MODEL=.*can't be merged into"):
        first_base(loaded(model=path), ArtifactStore(str(tmp_path / "artifacts")))
