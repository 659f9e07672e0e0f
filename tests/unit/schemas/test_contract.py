from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import medloop_schemas
import pytest
from medloop_schemas import TOPICS, Topic
from medloop_schemas.contract import (
    ASYNCAPI,
    FOLDER,
    TRAFFIC,
    channel_name,
    contract,
    main,
    schema_path,
    stale,
    write,
)

PUBLISHED_WITH_V1 = Path(__file__).parent / "published_v1.json"
"""The fields each event had when version 1 was published: {event type: {"required": […], "all": […]}}."""

every_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / ASYNCAPI).read_bytes())
    return loaded


def resolve(reference: str) -> Any:
    if reference.startswith("./"):
        return json.loads((FOLDER / reference).read_bytes())
    found: Any = document()
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_the_committed_contract_is_what_the_models_say() -> None:
    assert stale(FOLDER) == [], "run `make contract` and commit the result"


def test_a_stale_contract_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--folder", str(tmp_path)]
    assert main([*folder, "--check"]) == 1
    assert main(folder) == 0
    assert main([*folder, "--check"]) == 0
    (tmp_path / ASYNCAPI).write_text("{}")
    (tmp_path / "events" / "medloop.gone.v1.json").write_text("{}")
    somebodys = [tmp_path / "package.json", tmp_path / "events" / "notes.json"]
    for path in somebodys:
        path.write_text("{}")
    capsys.readouterr()
    assert main([*folder, "--check"]) == 1
    assert "asyncapi.json, events/medloop.gone.v1.json" in capsys.readouterr().out
    write(tmp_path)
    assert stale(tmp_path) == []
    assert not (tmp_path / "events" / "medloop.gone.v1.json").exists()
    assert all(path.exists() for path in somebodys)


@every_topic
def test_event_schemas_are_valid_json_schema(topic: Topic) -> None:
    schema = json.loads(contract()[schema_path(topic.event)])
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"].startswith("urn:medloop:")


@every_topic
def test_no_schema_forbids_what_it_does_not_know(topic: Topic) -> None:
    assert b'"additionalProperties": false' not in contract()[schema_path(topic.event)]


@every_topic
def test_fields_are_only_ever_added(topic: Topic) -> None:
    published = json.loads(PUBLISHED_WITH_V1.read_text())
    schema = json.loads(contract()[schema_path(topic.event)])
    for place, body in {"": schema, **schema.get("$defs", {})}.items():
        if "properties" not in body:
            continue
        before = published[topic.event.event_type].get(place)
        if before is None:
            continue
        assert set(before["all"]) <= set(body["properties"]), f"{place or 'the event'} lost a field"
        assert set(body.get("required", [])) <= set(before["required"]), (
            f"a new field of {place or 'the event'} needs a default: older producers do not send it"
        )


@every_topic
def test_every_topic_is_a_channel_with_its_key_partitions_and_retention(topic: Topic) -> None:
    channel = document()["channels"][channel_name(topic)]
    kafka = channel["bindings"]["kafka"]
    assert channel["address"] == kafka["topic"] == topic.name
    assert kafka["partitions"] == topic.partitions
    assert kafka["topicConfiguration"]["retention.ms"] == topic.retention_ms
    (message,) = (resolve(reference["$ref"]) for reference in channel["messages"].values())
    assert topic.key in message["bindings"]["kafka"]["key"]["description"]
    assert message["headers"]["properties"]["ce_type"]["const"] == topic.event.event_type
    assert resolve(message["payload"]["$ref"])["title"] == topic.event.__name__
    assert document()["channels"][f"{channel_name(topic)}-dlq"]["address"] == topic.dead_letters


def test_every_operation_refers_to_what_is_there() -> None:
    for name, operation in document()["operations"].items():
        service, action, channel = name.split(".")
        assert service in TRAFFIC
        assert operation["action"] == action
        assert resolve(operation["channel"]["$ref"])["title"] == channel
        for reference in operation["messages"]:
            assert reference["$ref"].startswith(operation["channel"]["$ref"])
            assert resolve(resolve(reference["$ref"])["$ref"])["contentType"] == "application/json"


def test_everything_read_is_written_by_someone() -> None:
    read = {event for traffic in TRAFFIC.values() for event in traffic.reads}
    written = {event for traffic in TRAFFIC.values() for event in traffic.writes}
    from_outside = {
        medloop_schemas.ImageAcquired,
        medloop_schemas.LabelConfirmed,
        medloop_schemas.ReleaseOrdered,
        medloop_schemas.FisherMeasured,
    }
    assert read <= written | from_outside
    assert not from_outside & written
    assert {topic.event for topic in TOPICS} == read | written


def test_topics_read_together_share_their_partitions() -> None:
    for key in {topic.key for topic in TOPICS}:
        assert len({topic.partitions for topic in TOPICS if topic.key == key}) == 1


def test_all_names_what_is_exported() -> None:
    public = {
        name
        for name, value in vars(medloop_schemas).items()
        if not name.startswith("_") and not isinstance(value, type(sys))
    }
    assert set(medloop_schemas.__all__) == public
    assert list(medloop_schemas.__all__) == sorted(medloop_schemas.__all__, key=_constants_first)


def _constants_first(name: str) -> tuple[bool, bool, str]:
    return (not name.isupper(), name[0].islower(), name)


def test_the_package_imports_pydantic_and_orjson_and_nothing_else() -> None:
    folder = Path(medloop_schemas.__file__).parent
    imported = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name} imports relatively"
                imported.add((node.module or "").split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"medloop_schemas"}
    assert foreign == {"pydantic", "orjson", "pydantic_core"} & foreign
    assert {"pydantic", "orjson"} <= foreign
