from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from medloop_schemas import AdaptationRequested, Diagnosis, Event, LabelConfirmed, Strategy, topic_of
from medloop_services.bus.batch import KeyedBatch, Strikes
from medloop_services.bus.outgoing import outgoing
from medloop_services.bus.processor import KeyedProcessor, ServiceState
from medloop_services.bus.received import Received, receive
from structlog.testing import capture_logs
from structlog.typing import EventDict

START = datetime(2026, 1, 1, tzinfo=UTC)


class Asked(ServiceState):
    request: AdaptationRequested | None = None


def label(sequence: int) -> LabelConfirmed:
    return LabelConfirmed(
        time=START + timedelta(seconds=sequence),
        image_id=f"device-{sequence}",
        device_id="device",
        site_id="ward",
        sequence=sequence,
        class_index=0,
        class_name="normal",
    )


def ask(state: Asked, event: Event) -> tuple[Asked, Sequence[Event]]:
    """Answer each label with itself, and from the first on with one request, said again each time."""
    request = state.request or AdaptationRequested(
        time=event.time,
        site_id="ward",
        diagnosis=Diagnosis.DATA_DRIFT,
        strategy=Strategy.SHALLOW_EWC,
        base_version="ward-0",
        onset={"device": 7},
        detector="cusum",
        evidence=("The inputs have shifted.",),
    )
    return Asked(request=request), (event, request)


def arrived(event: LabelConfirmed, offset: int) -> Received:
    record = outgoing(event, "/test")
    return receive(
        LabelConfirmed,
        topic=topic_of(LabelConfirmed).name,
        partition=0,
        offset=offset,
        key=record.key,
        value=record.value,
        headers=record.headers,
        partitions=None,
    )


def lines_of(labels: int) -> list[EventDict]:
    processor: KeyedProcessor[Any] = KeyedProcessor(
        "ask", (LabelConfirmed,), (LabelConfirmed, AdaptationRequested), Asked, lambda _key: Asked(), ask
    )
    received = [arrived(label(sequence), sequence) for sequence in range(labels)]
    with capture_logs() as lines:
        KeyedBatch(processor, {}, received, "/test", Strikes(3)).run()
    return lines


def test_a_decision_is_one_line_with_its_ids_and_its_reason() -> None:
    (line,) = lines_of(labels=1)
    assert line["log_level"] == "info"
    assert line["event"] == "decision"
    assert line["type"] == "medloop.adaptation.requested.v1"
    _, (_, request) = ask(Asked(), label(0))
    assert line["event_id"] == request.event_id
    assert line["cause"] == label(0).event_id
    assert line["site_id"] == "ward"
    assert line["diagnosis"] == "data-drift"
    assert line["evidence"] == ("The inputs have shifted.",)


def test_a_decision_said_again_and_an_event_of_every_image_are_no_lines() -> None:
    assert len(lines_of(labels=5)) == 1


def test_a_line_is_json_as_the_services_write_it() -> None:
    (line,) = lines_of(labels=1)
    written = structlog.processors.JSONRenderer()(None, "info", line)
    assert json.loads(written)["strategy"] == "shallow-ewc"
    assert json.loads(written)["onset"] == {"device": 7}
