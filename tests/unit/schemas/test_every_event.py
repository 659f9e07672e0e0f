"""What holds of every event on every topic: round trip, tolerance, derived ids, and its published schema."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal

import jsonschema  # type: ignore[import-untyped]
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from medloop_schemas import (
    TOPICS,
    AccuracyEstimate,
    AdaptationRequested,
    Artifact,
    AuditRecorded,
    BlockActivation,
    CandidateTrained,
    DetectorReading,
    Diagnosis,
    DriftDiagnosed,
    DriftSignalled,
    Event,
    ExampleLabelled,
    FisherMeasured,
    Frame,
    ImageAcquired,
    ImageStatistics,
    InvalidEvent,
    LabelConfirmed,
    LabelEvidence,
    LabelRequested,
    Layer,
    Order,
    PredictionMade,
    ReleaseChanged,
    ReleaseOrdered,
    ReleaseStage,
    RoundClosed,
    RoundOpened,
    Scope,
    ServingStage,
    StatsMeasured,
    Strategy,
    UnlabelledImage,
    UpdateSubmitted,
    decode,
    encode,
    topic_of,
)
from medloop_schemas.contract import event_schema
from medloop_schemas.label import MAX_CLASSES

EVENTS = [topic.event for topic in TOPICS]
SOURCE = "/medloop/test/0.1.0"

identifiers = st.from_regex(r"[A-Za-z0-9_.:/-]{1,128}", fullmatch=True)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
counts = st.integers(0, 2**31)
numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(0, 1e300)
shares = st.floats(0, 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
class_indices = st.integers(0, MAX_CLASSES - 1)
times = st.datetimes(
    datetime(1970, 1, 2),
    datetime(2100, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)


def many(values: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=least, max_size=3).map(tuple)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    channels: Literal[1, 3] = 1 if draw(st.booleans()) else 3
    if draw(st.booleans()):
        url = draw(st.sampled_from(["s3://bucket/frame.bin", "file:///frames/1"]))
        return Frame(height=height, width=width, channels=channels, url=url, sha256=draw(digests))
    size = height * width * channels
    return Frame.inline(
        draw(st.binary(min_size=size, max_size=size)), height=height, width=width, channels=channels
    )


artifacts = st.builds(Artifact, url=texts, sha256=digests, size=st.integers(1, 2**40))
readings = st.builds(
    DetectorReading,
    detector=texts,
    layer=st.sampled_from(Layer),
    statistic=texts,
    value=numbers,
    threshold=numbers,
    alarmed=st.booleans(),
    since_sequence=st.none() | counts,
)
evidence = st.builds(
    LabelEvidence,
    confirmed=counts,
    errors=counts,
    expected_error=shares,
    unknown=counts,
    unknown_classes=st.dictionaries(class_indices, texts, max_size=2),
)
accuracies = st.builds(
    AccuracyEstimate, expected=shares, low=shares, high=shares, images=st.integers(1, 2**31)
)
unlabelled = st.builds(UnlabelledImage, image_id=identifiers, sequence=counts, predicted_class=class_indices)
statistics = st.builds(
    ImageStatistics,
    image_id=identifiers,
    sequence=counts,
    predicted_class=counts,
    data=st.dictionaries(texts, numbers, max_size=3),
    decision=st.dictionaries(texts, numbers, max_size=3),
    activation=st.dictionaries(texts, numbers, max_size=3),
    embedding=many(numbers, 1),
)
blocks = st.builds(BlockActivation, mean=numbers, spread=positive, saturated=shares, dead=shares)
onsets = st.dictionaries(identifiers, counts, min_size=1, max_size=3)
placed = {"time": times, "site_id": identifiers}
on_device = {**placed, "device_id": identifiers, "image_id": identifiers}

STRATEGIES: dict[type[Event], st.SearchStrategy[Any]] = {
    ImageAcquired: st.builds(
        ImageAcquired, **on_device, study_id=identifiers, sequence=counts, frame=frames()
    ),
    LabelConfirmed: st.builds(
        LabelConfirmed,
        **on_device,
        sequence=counts,
        revision=st.integers(1, 9),
        class_index=class_indices,
        class_name=texts,
    ),
    PredictionMade: st.builds(
        PredictionMade,
        **on_device,
        sequence=counts,
        model_version=identifiers,
        model_digest=digests,
        stage=st.sampled_from(ServingStage),
        classes=many(texts, 1),
        predicted_class=counts,
        probabilities=many(shares, 1),
        logits=many(numbers, 1),
        augmented_probabilities=many(shares, 1),
        embedding=many(numbers, 1),
        blocks=many(blocks),
        withheld=st.booleans(),
    ),
    StatsMeasured: st.builds(
        StatsMeasured,
        **placed,
        device_id=identifiers,
        model_version=identifiers,
        images=many(statistics, 1),
    ),
    DriftSignalled: st.builds(
        DriftSignalled,
        **placed,
        device_id=identifiers,
        model_version=identifiers,
        sequence=counts,
        labels_seen=counts,
        images_seen=counts,
        readings=many(readings),
        labels=evidence,
        shifted_share=shares,
        accuracy=st.none() | accuracies,
        unlabelled=many(unlabelled),
    ),
    DriftDiagnosed: st.builds(
        DriftDiagnosed,
        **placed,
        number=counts,
        incident=identifiers,
        open=st.booleans(),
        base_version=identifiers,
        diagnosis=st.none() | st.sampled_from(Diagnosis),
        probabilities=st.dictionaries(st.sampled_from(Diagnosis), shares, min_size=1),
        scope=st.sampled_from(Scope),
        onset=onsets,
        evidence=many(texts, 1),
        accuracy=st.none() | accuracies,
        waiting_for=st.none() | texts,
    ),
    LabelRequested: st.builds(
        LabelRequested,
        **on_device,
        sequence=counts,
        incident=identifiers,
        predicted_class=class_indices,
        after_onset=st.booleans(),
        reason=texts,
    ),
    AdaptationRequested: st.builds(
        AdaptationRequested,
        **placed,
        diagnosis=st.sampled_from(Diagnosis),
        strategy=st.sampled_from(Strategy),
        base_version=identifiers,
        onset=onsets,
        new_classes=st.dictionaries(class_indices, texts, max_size=2),
        detector=texts,
        evidence=many(texts, 1),
    ),
    ExampleLabelled: st.builds(
        ExampleLabelled,
        **on_device,
        study_id=identifiers,
        image_sequence=counts,
        label_sequence=counts,
        revision=st.integers(1, 9),
        class_index=class_indices,
        class_name=texts,
        predicted_class=counts,
        model_version=identifiers,
        frame=frames(),
    ),
    CandidateTrained: st.builds(
        CandidateTrained,
        **placed,
        request_id=identifiers,
        attempt=st.integers(1, 9),
        version=identifiers,
        base_version=identifiers,
        package=artifacts,
        diagnosis=st.sampled_from(Diagnosis),
        strategy=st.sampled_from(Strategy),
        onset=onsets,
        classes=many(texts, 1),
        labels_used=st.integers(1, 9999),
        updates=st.integers(1, 9999),
        changed_codes=shares,
        loss_first=positive,
        loss_last=positive,
    ),
    ReleaseOrdered: st.builds(
        ReleaseOrdered,
        **placed,
        order_id=identifiers,
        order=st.sampled_from(Order),
        version=identifiers,
        person=texts,
        reason=texts,
    ),
    ReleaseChanged: st.builds(
        ReleaseChanged,
        **placed,
        number=counts,
        version=identifiers,
        stage=st.sampled_from(ReleaseStage),
        package=artifacts,
        teacher=st.none() | artifacts,
        classes=many(texts, 1),
        devices=many(identifiers),
        previous_version=st.none() | identifiers,
        request_id=st.none() | identifiers,
        reason=texts,
    ),
    FisherMeasured: st.builds(
        FisherMeasured,
        time=times,
        base_version=identifiers,
        base_sha256=digests,
        fisher=artifacts,
        images=st.integers(1, 2**31),
        data_sha256=digests,
        seed=counts,
        command=texts,
    ),
    UpdateSubmitted: st.builds(
        UpdateSubmitted,
        **placed,
        federation=identifiers,
        request_id=identifiers,
        attempt=st.integers(1, 9),
        base_version=identifiers,
        base_sha256=digests,
        samples=st.integers(1, 2**31),
        payload=artifacts,
        signature=st.from_regex(r"[0-9a-f]{128}", fullmatch=True),
    ),
    RoundOpened: st.builds(
        RoundOpened,
        time=times,
        federation=identifiers,
        number=st.integers(1, 9999),
        base_sha256=digests,
        quorum=st.integers(1, 99),
        closes_at=times,
    ),
    RoundClosed: st.builds(
        RoundClosed,
        **placed,
        federation=identifiers,
        number=st.integers(1, 9999),
        base_sha256=digests,
        merged=artifacts,
        merged_sha256=digests,
        aggregator=texts,
        samples=st.dictionaries(identifiers, st.integers(1, 2**31), min_size=1, max_size=3),
        clipped=many(identifiers),
        agreement=st.dictionaries(identifiers, numbers, max_size=3),
        refused=st.dictionaries(identifiers, texts, max_size=3),
        reason=texts,
    ),
    AuditRecorded: st.builds(
        AuditRecorded,
        **placed,
        number=counts,
        decision=texts,
        version=identifiers,
        actor=texts,
        reason=texts,
        evidence=st.dictionaries(texts, st.none() | st.booleans() | counts | numbers | texts, max_size=3),
        previous_hash=digests,
    ),
}

every_event = pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.__name__)
few = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_every_topic_has_events_to_test_with() -> None:
    assert set(STRATEGIES) == set(EVENTS)


@every_event
@few
@given(data=st.data())
def test_decoding_undoes_encoding(event_type: type[Event], data: st.DataObject) -> None:
    event = data.draw(STRATEGIES[event_type])
    message = encode(event, SOURCE)
    again = decode(event_type, message.value)
    assert again == event
    assert encode(again, SOURCE) == message


@every_event
@few
@given(data=st.data())
def test_the_record_says_what_it_carries(event_type: type[Event], data: st.DataObject) -> None:
    event = data.draw(STRATEGIES[event_type])
    topic = topic_of(event_type)
    message = encode(event, SOURCE)
    headers = dict(message.headers)
    assert message.topic == topic.name
    assert message.key.decode() == getattr(event, topic.key)
    assert headers["ce_type"].decode() == event_type.event_type
    assert headers["ce_id"].decode() == event.event_id
    assert headers["ce_subject"].decode() == event.subject
    assert datetime.fromisoformat(headers["ce_time"].decode()) == event.time
    assert headers["ce_specversion"] == b"1.0"
    assert headers["content-type"] == b"application/json"


@every_event
@few
@given(data=st.data())
def test_ids_depend_on_causes_and_not_on_when(event_type: type[Event], data: st.DataObject) -> None:
    event = data.draw(STRATEGIES[event_type])
    later = event.model_copy(update={"time": event.time + timedelta(hours=1)})
    assert later.event_id == event.event_id
    assert len(event.event_id) == 32


@every_event
@few
@given(data=st.data())
def test_fields_from_the_future_are_ignored(event_type: type[Event], data: st.DataObject) -> None:
    event = data.draw(STRATEGIES[event_type])
    fields = orjson.loads(encode(event, SOURCE).value)
    assert decode(event_type, orjson.dumps(_with_unknown_fields(fields))) == event


def _with_unknown_fields(value: Any) -> Any:
    """Add a field to the event and to every nested body; dictionaries keyed by data stay as they are."""
    if isinstance(value, list):
        return [_with_unknown_fields(item) for item in value]
    bodies = (
        "frame",
        "fisher",
        "labels",
        "package",
        "teacher",
        "payload",
        "merged",
        "readings",
        "images",
        "blocks",
        "unlabelled",
    )
    if not isinstance(value, dict):
        return value
    grown = {name: _with_unknown_fields(item) if name in bodies else item for name, item in value.items()}
    return {**grown, "from_the_future": {"any": ["thing", 1]}}


@every_event
@few
@given(data=st.data())
def test_events_satisfy_their_published_schema(event_type: type[Event], data: st.DataObject) -> None:
    event = data.draw(STRATEGIES[event_type])
    validator = jsonschema.Draft202012Validator(event_schema(event_type))
    assert list(validator.iter_errors(json.loads(encode(event, SOURCE).value))) == []


URL = {"url": "s3://bucket/frame"}
DIGEST = {"sha256": "0" * 64}


@pytest.mark.parametrize(
    ("source", "fits"),
    [
        ({"data": "AAAA"}, True),
        ({"data": "AAAA", "url": None}, True),
        (URL | DIGEST, True),
        ({}, False),
        ({"data": None}, False),
        (URL, False),
        (DIGEST, False),
        ({"data": "AAAA"} | URL | DIGEST, False),
        ({"data": "A" * 699_056}, False),
    ],
)
def test_a_frame_fits_its_schema_if_it_is_taken(source: dict[str, str | None], fits: bool) -> None:
    size = {"height": 1, "width": 3} if len(source.get("data") or "") < 5 else {"height": 724, "width": 4096}
    frame = size | source
    image = {
        "time": "2026-01-01T00:00:00Z",
        "image_id": "image",
        "device_id": "device",
        "site_id": "ward",
        "study_id": "study",
        "sequence": 0,
        "frame": frame,
    }
    assert jsonschema.Draft202012Validator(event_schema(ImageAcquired)).is_valid(image) is fits
    if fits:
        decode(ImageAcquired, orjson.dumps(image))
    else:
        with pytest.raises(InvalidEvent):
            decode(ImageAcquired, orjson.dumps(image))


@every_event
@settings(max_examples=1, deadline=None)
@given(data=st.data())
def test_a_missing_field_is_refused_by_name(event_type: type[Event], data: st.DataObject) -> None:
    fields = orjson.loads(encode(data.draw(STRATEGIES[event_type]), SOURCE).value)
    for name in event_schema(event_type)["required"]:
        incomplete = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(InvalidEvent) as refused:
            decode(event_type, orjson.dumps(incomplete))
        assert (refused.value.code, refused.value.field) == ("missing", name)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(event_schema(event_type)).validate(incomplete)


@every_event
@settings(max_examples=1, deadline=None)
@given(data=st.data())
def test_events_are_frozen(event_type: type[Event], data: st.DataObject) -> None:
    event = data.draw(STRATEGIES[event_type])
    with pytest.raises(ValueError, match="frozen"):
        event.time = datetime(2026, 1, 1, tzinfo=UTC)
