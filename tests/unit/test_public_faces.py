"""What the packages show to the outside is what they say they show."""

from __future__ import annotations

import importlib
from pathlib import Path

import medloop_kernels
import medloop_schemas
import pytest
from medloop_schemas import TOPICS, Event, errors
from medloop_schemas.contract import TRAFFIC
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
from medloop_services.bus.processor import Service
from medloop_services.loop import services

Traffic = dict[str, tuple[set[type[Event]], set[type[Event]]]]


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    folder = tmp_path_factory.mktemp("artifacts")
    context = Context(ArtifactStore(str(folder), cache=folder / "cache"))
    return {service.name: of_service(service) for service in services(context)}


def of_service(service: Service) -> tuple[set[type[Event]], set[type[Event]]]:
    """Return what a service reads or follows, and what it writes."""
    reads = {event for processor in service.processors for event in processor.inputs}
    followed = {follower.event for follower in service.followers}
    writes = {event for processor in service.processors for event in processor.outputs}
    return reads | followed, writes


@pytest.mark.parametrize("name", sorted(TRAFFIC))
def test_the_published_contract_says_what_a_service_reads_and_writes(name: str, traffic: Traffic) -> None:
    reads, writes = traffic[name]
    said = TRAFFIC[name]
    assert set(said.reads) == reads, f"TRAFFIC in schemas/medloop_schemas/contract.py, reads of {name}"
    assert set(said.writes) == writes, f"TRAFFIC in schemas/medloop_schemas/contract.py, writes of {name}"


def test_the_published_contract_knows_every_service(traffic: Traffic) -> None:
    assert set(TRAFFIC) == set(traffic)


def test_every_topic_but_those_from_outside_is_written_by_one_service(traffic: Traffic) -> None:
    outside = {f"medloop.{name}.v1" for name in ("images", "labels", "orders", "fisher")}
    for topic in TOPICS:
        writers = [name for name, (_, writes) in traffic.items() if topic.event in writes]
        assert len(writers) == (topic.name not in outside), f"{topic.name} is written by {writers}"


@pytest.mark.parametrize("package", [medloop_schemas, medloop_kernels], ids=lambda package: package.__name__)
def test_a_package_has_what_it_exports_and_exports_what_it_has(package: object) -> None:
    said = set(package.__all__)  # type: ignore[attr-defined]
    there = {name for name in vars(package) if not name.startswith("_")}
    modules = {path.stem for path in Path(package.__file__).parent.glob("*")}  # type: ignore[attr-defined]
    assert said <= there
    assert there - modules - {"annotations"} <= said


def test_every_event_of_the_registry_is_exported() -> None:
    for topic in TOPICS:
        assert getattr(medloop_schemas, topic.event.__name__) is topic.event


def test_every_error_code_is_its_own() -> None:
    modules = (
        "medloop_schemas.errors",
        "medloop_kernels.errors",
        "medloop_model.errors",
        "medloop_model.federation.errors",
    )
    codes: dict[str, str] = {}
    for name in modules:
        for kind in vars(importlib.import_module(name)).values():
            if not (isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == name):
                continue
            code = vars(kind).get("code")
            if isinstance(code, str):
                assert codes.setdefault(code, kind.__name__) == kind.__name__
    assert errors.ConfigurationError.code in codes
