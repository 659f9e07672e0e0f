from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from medloop_schemas import DetectorReading, DriftSignalled, LabelEvidence, Layer
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
from medloop_services.event_aggregation.aggregation import processor
from medloop_services.event_aggregation.state import AggregationState
from structlog.testing import capture_logs
from structlog.typing import EventDict


def signal(sequence: int, *, alarmed: bool = True, labelled_to: int | None = None) -> DriftSignalled:
    """A scanner of which a fifth of the images have changed: too few to tell without labels."""
    return DriftSignalled(
        time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=sequence),
        device_id="scanner",
        site_id="ward",
        model_version="ward-0",
        sequence=sequence,
        images_seen=sequence + 1,
        labels_seen=0,
        readings=tuple(
            DetectorReading(
                detector=detector,
                layer=Layer.DATA,
                statistic="noise",
                value=5.0,
                threshold=3.0,
                alarmed=alarmed and detector != "prior",
                since_sequence=100 if alarmed and detector != "prior" else None,
            )
            for detector in ("cusum", "ks", "prior")
        ),
        labels=LabelEvidence(
            confirmed=64, errors=6, expected_error=0.1, unknown=0, latest_sequence=labelled_to
        ),
        shifted_share=0.2,
    )


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(ArtifactStore(str(tmp_path), cache=tmp_path / "cache"))


def fold(
    context: Context, *signals: DriftSignalled, state: AggregationState | None = None
) -> tuple[AggregationState, list[EventDict]]:
    aggregating = processor(context)
    state = state or aggregating.initial("ward")
    with capture_logs() as lines:
        for event in signals:
            state, _ = aggregating.step(state, event)
    return state, [line for line in lines if line["event"].startswith("undecided")]


WAITING = [signal(sequence, labelled_to=105) for sequence in range(111, 200, 16)]


def test_what_a_diagnosis_waits_for_is_a_note_and_one_line_of_the_log(context: Context) -> None:
    _, lines = fold(context, *WAITING)
    assert context.health.degraded == {}, "waiting is nothing wrong"
    (note,) = context.health.notes.values()
    assert "ward is undecided" in note
    assert "48 images" in note
    assert "6 so far" in note
    (line,) = lines
    assert line["site_id"] == "ward"
    assert line["event_id"] in {event.event_id for event in WAITING}
    assert "scanner" in line["reason"]


def test_the_note_is_renewed_as_labels_come_and_gone_once_it_is_decided(context: Context) -> None:
    state, _ = fold(context, *WAITING)
    state, _ = fold(context, signal(207, labelled_to=130), state=state)
    assert "31 so far" in next(iter(context.health.notes.values()))
    state, lines = fold(context, signal(223, labelled_to=160), state=state)
    assert state.open is not None
    assert context.health.notes == {}
    assert lines == [], "the request itself is the line"


def test_an_alarm_that_ends_undecided_is_told(context: Context) -> None:
    state, _ = fold(context, *WAITING)
    _, lines = fold(context, signal(223, alarmed=False), state=state)
    assert context.health.notes == {}
    assert [line["event"] for line in lines] == ["undecided no more"]
