"""A registered service is packaged, built, composed, guarded and run: or a test names what is missing."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
from medloop_services.cli.settings_table import MODULES
from medloop_services.loop import services
from medloop_services.stack import SERVICES

ROOT = Path(__file__).parents[2]
PACKAGING = tomllib.loads((ROOT / "services" / "pyproject.toml").read_text())["project"]
WORKSPACE = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())

REGISTERED: dict[str, str] = PACKAGING["entry-points"]["medloop.services"]
STAGES = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))

each_service = pytest.mark.parametrize("name", sorted(REGISTERED))


def target_of(name: str) -> str:
    """A service's name where underscores are not usual: extras and image targets."""
    return name.replace("_", "-")


def stage_of(target: str) -> str:
    """Return what a Dockerfile stage holds, from its FROM to the next."""
    found = re.search(
        rf"^FROM \S+ AS {re.escape(target)}$(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL
    )
    assert found, f"deploy/docker/Dockerfile has no stage {target!r}"
    return found[1]


def test_what_is_installed_is_what_is_registered() -> None:
    installed = {point.name: point.value for point in entry_points(group="medloop.services")}
    assert installed == REGISTERED, "the installed entry points are out of date: run `make setup`"


@each_service
def test_its_build_function_lies_in_its_own_folder(name: str) -> None:
    assert REGISTERED[name] == f"medloop_services.{name}.app:build"


@each_service
def test_it_has_an_extra_and_belongs_to_all(name: str) -> None:
    extras = PACKAGING["optional-dependencies"]
    assert target_of(name) in extras, f"services/pyproject.toml has no extra {target_of(name)!r}"
    (everything,) = extras["all"]
    included = re.fullmatch(r"medloop-services\[(.*)\]", everything)
    assert included
    assert target_of(name) in included[1].split(","), f"the extra 'all' leaves out {target_of(name)!r}"


def test_no_registry_is_asked_for_medloops_own_names() -> None:
    builder = stage_of("builder")
    assert "> /wheels/medloop.txt" in builder, "the builder does not bind names to the wheels it built"
    constraints = re.search(r'UV_CONSTRAINT="([^"]*)"', builder)
    assert constraints
    assert constraints[1].split() == ["requirements.lock", "/wheels/medloop.txt"]
    environments = re.findall(r"^FROM (\S+) AS build-", DOCKERFILE, re.MULTILINE)
    assert environments == ["builder"] * len(REGISTERED), "an environment is built without the constraints"


@each_service
def test_it_has_an_image_that_installs_its_extra_and_starts_it(name: str) -> None:
    target = target_of(name)
    assert f'"medloop-services[{target}]"' in stage_of(f"build-{target}"), (
        f"build-{target} installs another extra"
    )
    image = stage_of(target)
    assert f"COPY --from=build-{target} " in image, f"stage {target} copies another environment"
    assert f'CMD ["medloop", "service", "{name}"]' in image, f"stage {target} starts something else"


@each_service
def test_it_is_composed_from_its_own_target(name: str) -> None:
    assert name in COMPOSE["services"], f"docker-compose.yml has no service {name!r}"
    build = COMPOSE["services"][name]["build"]
    assert build["target"] == target_of(name), f"{name} is built from target {build['target']!r}"
    assert build["target"] in STAGES
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()


@each_service
@pytest.mark.parametrize("contract", ["no service imports another", "no core knows Kafka"])
def test_its_imports_are_bounded(name: str, contract: str) -> None:
    (found,) = [one for one in WORKSPACE["tool"]["importlinter"]["contracts"] if one["name"] == contract]
    modules = found["modules"] if found["type"] == "independence" else found["source_modules"]
    assert any(f"{module}.".startswith(f"medloop_services.{name}.") for module in modules), (
        f"pyproject.toml's contract {contract!r} leaves out medloop_services.{name}"
    )


@each_service
def test_its_settings_are_shown(name: str) -> None:
    assert f"medloop_services.{name}.settings" in MODULES, "see MODULES in cli/settings_table.py"


def test_the_loop_runs_every_service_and_no_other(tmp_path: Path) -> None:
    context = Context(ArtifactStore(str(tmp_path), cache=tmp_path / "cache"))
    assert {service.name for service in services(context)} == set(REGISTERED), "see loop.services()"


def test_the_stack_on_one_machine_starts_every_service_and_no_other() -> None:
    assert set(SERVICES) == set(REGISTERED), "see SERVICES in stack.py"


def test_compose_waits_only_for_services_it_has() -> None:
    for name, service in COMPOSE["services"].items():
        missing = set(service.get("depends_on", ())) - set(COMPOSE["services"])
        assert not missing, f"{name} depends on {missing}, which docker-compose.yml does not define"
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in COMPOSE["services"][needed], (
                    f"{needed} has no health check to wait for"
                )


@each_service
def test_it_can_be_scaled(name: str) -> None:
    service = COMPOSE["services"][name]
    assert "container_name" not in service, f"{name}: two replicas can't share a container name"
    fixed = [port for port in service["ports"] if "published" in port]
    assert not fixed, f"{name}: two replicas can't share the host's ports {fixed}"
    assert "MEDLOOP_REPLICA" not in service["environment"], f"{name}: two replicas can't share a replica name"


@each_service
def test_its_settings_and_its_health_can_be_reached(name: str) -> None:
    service = COMPOSE["services"][name]
    assert {"path": "medloop.env", "required": False} in service["env_file"]
    listens = re.search(r"MEDLOOP_HEALTH_PORT=(\d+)", stage_of("runtime"))
    assert listens
    assert int(listens[1]) in [port["target"] for port in service["ports"]]
    assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, "metrics are this host's alone"


def test_compose_declares_the_volumes_it_mounts_and_mounts_those_it_declares() -> None:
    mounted = {
        volume.split(":")[0]
        for service in COMPOSE["services"].values()
        for volume in service.get("volumes", ())
        if not volume.startswith((".", "/", "~"))
    }
    assert mounted == set(COMPOSE["volumes"])


@each_service
def test_its_image_is_healthy_only_while_it_lives(name: str) -> None:
    runtime = stage_of("runtime")
    assert re.search(rf"^FROM runtime AS {target_of(name)}$", DOCKERFILE, re.MULTILINE)
    assert "/health/live" in runtime
    assert "STOPSIGNAL SIGTERM" in runtime


def test_compose_gives_a_service_longer_to_stop_than_it_takes_to_drain() -> None:
    from medloop_services.bus.settings import BusSettings

    for name in REGISTERED:
        patience = COMPOSE["services"][name]["stop_grace_period"]
        assert int(patience.removesuffix("s")) > BusSettings.model_fields["drain_s"].default
