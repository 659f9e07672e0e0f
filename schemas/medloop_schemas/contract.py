"""The published contract: an AsyncAPI 3.0 document and one JSON Schema an event, generated from the models.

`python -m medloop_schemas.contract` writes it, `--check` says whether what is there is up to date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from medloop_schemas.adaptation import AdaptationRequested
from medloop_schemas.audit import AuditRecorded
from medloop_schemas.candidate import CandidateTrained
from medloop_schemas.codec import CONTENT_TYPE, SPEC_VERSION
from medloop_schemas.diagnosed import DriftDiagnosed
from medloop_schemas.event import Event
from medloop_schemas.example import ExampleLabelled
from medloop_schemas.federation import RoundClosed, RoundOpened, UpdateSubmitted
from medloop_schemas.fisher import FisherMeasured
from medloop_schemas.image import ImageAcquired
from medloop_schemas.label import LabelConfirmed
from medloop_schemas.label_request import LabelRequested
from medloop_schemas.order import ReleaseOrdered
from medloop_schemas.prediction import PredictionMade
from medloop_schemas.release import ReleaseChanged
from medloop_schemas.signal import DriftSignalled
from medloop_schemas.stats import StatsMeasured
from medloop_schemas.topics import TOPICS, Topic, topic_of

Json = dict[str, Any]

FOLDER = Path(__file__).resolve().parents[1] / "contract"
"""Where the repository keeps the generated contract."""

ASYNCAPI = "asyncapi.json"
OURS = (ASYNCAPI, "events/medloop.*.json")
"""Patterns of the contract's files; whatever else lies in its folder is somebody's own."""

ASYNCAPI_VERSION = "3.0.0"
KAFKA_BINDING = "0.5.0"
JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
CONTRACT_VERSION = "1.0.0"

DEAD_LETTER_HEADERS = {
    "medloop-error-code": "stable reason, such as json, missing, shape, unhandled",
    "medloop-error-field": "dotted path of the offending field; empty for the whole record",
    "medloop-error-reason": "one sentence for a person",
    "medloop-topic": "where the record came from",
    "medloop-partition": "its partition there",
    "medloop-offset": "its offset there",
    "medloop-service": "name and version of the service that could not handle it",
    "medloop-cut-bytes": "how much was left out of a record that no event is as large as; 0 for a whole one",
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a service reads and writes. The services' own tests hold it against their processors."""

    reads: tuple[type[Event], ...]
    writes: tuple[type[Event], ...]


TRAFFIC: Mapping[str, Traffic] = {
    "inference": Traffic((ImageAcquired, ReleaseChanged, DriftDiagnosed), (PredictionMade,)),
    "feature_stats": Traffic((ImageAcquired, PredictionMade), (StatsMeasured,)),
    "drift_detection": Traffic((StatsMeasured, LabelConfirmed, ReleaseChanged), (DriftSignalled,)),
    "event_aggregation": Traffic((DriftSignalled,), (AdaptationRequested, DriftDiagnosed, LabelRequested)),
    "online_learner": Traffic(
        (
            ImageAcquired,
            PredictionMade,
            LabelConfirmed,
            AdaptationRequested,
            ExampleLabelled,
            ReleaseChanged,
            FisherMeasured,
            RoundClosed,
        ),
        (ExampleLabelled, CandidateTrained, UpdateSubmitted),
    ),
    "publisher": Traffic(
        (AdaptationRequested, CandidateTrained, ExampleLabelled, ReleaseOrdered, ReleaseChanged),
        (ReleaseChanged, AuditRecorded),
    ),
    "federation": Traffic((UpdateSubmitted,), (RoundOpened, RoundClosed)),
}
"""Service → what it reads and writes; images, labels, orders and Fishers come from outside."""


def contract() -> dict[str, bytes]:
    """Return the contract's files: path under the folder → content, the same on every machine."""
    files = {ASYNCAPI: asyncapi()}
    files.update({schema_path(topic.event): event_schema(topic.event) for topic in TOPICS})
    return {
        path: orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        for path, document in files.items()
    }


def schema_path(event: type[Event]) -> str:
    """Return where an event's JSON Schema lies under the contract's folder."""
    return f"events/{event.event_type}.json"


def event_schema(event: type[Event]) -> Json:
    """Return the JSON Schema of an event's record value. Fields it does not name are allowed and ignored."""
    return {
        "$schema": JSON_SCHEMA,
        "$id": f"urn:{event.event_type.replace('.', ':', 1)}",
        **event.model_json_schema(),
    }


def asyncapi() -> Json:
    """Return the AsyncAPI document: a channel a topic, an operation for what each service reads or writes."""
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "medloop",
            "version": CONTRACT_VERSION,
            "description": (
                "Events of a closed loop that keeps a medical image model right: CloudEvents 1.0 in binary "
                "mode over Kafka, JSON bodies. Fields are only ever added; ignore those you do not know."
            ),
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            name: channel
            for topic in TOPICS
            for name, channel in (
                (channel_name(topic), _channel(topic)),
                (f"{channel_name(topic)}-dlq", _dead_letter_channel(topic)),
            )
        },
        "operations": dict(_operations()),
        "components": {
            "messages": {
                **{topic.event.__name__: _message(topic) for topic in TOPICS},
                "DeadLetter": _dead_letter_message(),
            }
        },
    }


def channel_name(topic: Topic) -> str:
    """Return a topic's name in the document: `images` for `medloop.images.v1`."""
    return topic.name.split(".")[1]


def _channel(topic: Topic) -> Json:
    return {
        "address": topic.name,
        "title": channel_name(topic),
        "description": topic.description,
        "messages": {topic.event.__name__: _reference("components", "messages", topic.event.__name__)},
        "bindings": {"kafka": _kafka_channel(topic.name, topic)},
    }


def _dead_letter_channel(topic: Topic) -> Json:
    return {
        "address": topic.dead_letters,
        "title": f"{channel_name(topic)} that can't be handled",
        "description": f"Records of {topic.name} that a service could not handle, byte for byte, and why.",
        "messages": {"DeadLetter": _reference("components", "messages", "DeadLetter")},
        "bindings": {"kafka": _kafka_channel(topic.dead_letters, topic)},
    }


def _kafka_channel(name: str, topic: Topic) -> Json:
    return {
        "topic": name,
        "partitions": topic.partitions,
        "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": topic.retention_ms},
        "bindingVersion": KAFKA_BINDING,
    }


def _operations() -> list[tuple[str, Json]]:
    operations = []
    for service, traffic in TRAFFIC.items():
        for action, events in (("receive", traffic.reads), ("send", traffic.writes)):
            for event in events:
                channel = channel_name(topic_of(event))
                operation = {
                    "action": action,
                    "channel": _reference("channels", channel),
                    "title": f"{service} {'reads' if action == 'receive' else 'writes'} {channel}",
                    "messages": [_reference("channels", channel, "messages", event.__name__)],
                }
                operations.append((f"{service}.{action}.{channel}", operation))
    return operations


def _message(topic: Topic) -> Json:
    event = topic.event
    return {
        "name": event.event_type,
        "title": event.__name__,
        "summary": (event.__doc__ or "").strip().splitlines()[0],
        "contentType": CONTENT_TYPE,
        "headers": _cloud_event_headers(event),
        "payload": {"$ref": f"./{schema_path(event)}"},
        "bindings": {
            "kafka": {
                "key": {
                    "type": "string",
                    "description": (
                        f"{topic.key}, UTF-8: orders the events that share it; partitioned as Java's "
                        "producers do, murmur2(key) & 0x7fffffff modulo the partitions (librdkafka: "
                        "partitioner=murmur2_random); on another partition it is a dead letter"
                    ),
                },
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _cloud_event_headers(event: type[Event]) -> Json:
    attributes: Json = {
        "ce_specversion": {"type": "string", "const": SPEC_VERSION},
        "ce_id": {"type": "string", "description": "derived from the event's causes: a repeat has the same"},
        "ce_source": {"type": "string", "format": "uri-reference", "description": "service and version"},
        "ce_type": {"type": "string", "const": event.event_type},
        "ce_time": {"type": "string", "format": "date-time", "description": "event time, not send time"},
        "ce_subject": {"type": "string", "description": "what the event is about"},
        "content-type": {"type": "string", "const": CONTENT_TYPE},
    }
    return {
        "type": "object",
        "description": "CloudEvents 1.0 attributes, Kafka protocol binding, binary mode; UTF-8 values",
        "properties": attributes,
        "required": list(attributes),
    }


def _dead_letter_message() -> Json:
    return {
        "name": "medloop.dead-letter",
        "title": "DeadLetter",
        "summary": "A record that can't be handled: its own key, value and headers, and these headers.",
        "headers": {
            "type": "object",
            "properties": {
                name: {"type": "string", "description": description}
                for name, description in DEAD_LETTER_HEADERS.items()
            },
            "required": list(DEAD_LETTER_HEADERS),
        },
        "payload": {"description": "the record's value as it came, which may be no JSON at all"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": "the record's own key"},
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _reference(*path: str) -> Json:
    return {"$ref": "#/" + "/".join(path)}


def stale(folder: Path) -> list[str]:
    """Return the paths under a folder that are missing, differ from the contract or are of an older one."""
    wanted = contract()
    there = {
        path.relative_to(folder).as_posix(): path.read_bytes() for name in OURS for path in folder.glob(name)
    }
    return sorted(path for path in wanted.keys() | there.keys() if wanted.get(path) != there.get(path))


def write(folder: Path) -> None:
    """Write the contract's files and remove those of an older one; other files stay."""
    wanted = contract()
    for path in stale(folder):
        if path in wanted:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(wanted[path])
        else:
            (folder / path).unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the contract; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m medloop_schemas.contract", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the contract lies")
    chosen = parser.parse_args(arguments)
    if not chosen.check:
        write(chosen.folder)
        return 0
    outdated = stale(chosen.folder)
    if outdated:
        print(f"out of date: {', '.join(outdated)}; run `python -m medloop_schemas.contract`")
    return 1 if outdated else 0


if __name__ == "__main__":
    sys.exit(main())
