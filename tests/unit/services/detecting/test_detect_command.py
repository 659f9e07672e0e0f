"""`medloop detect` as its user runs it, on phantoms: a scenario, a recording, and what it can't use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from medloop_schemas import Event, encode
from medloop_services.cli import app
from medloop_services.replay.dataset import draw_dataset
from medloop_services.replay.errors import RecordingError
from medloop_services.replay.recording import Record, write_recording
from medloop_services.replay.scenario import Stream, build_scenario
from medloop_services.replay.settings import ScenarioSettings
from typer.testing import CliRunner

PNG = b"\x89PNG"
SHORT = ("--before", "320", "--after", "160", "--data", "phantoms")


@pytest.fixture(autouse=True)
def _logs_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets its process's loggers for good; other tests of this process read theirs."""
    monkeypatch.setattr("medloop_services.bus.logs.configure_logs", lambda service, level: None)


@pytest.fixture(scope="module")
def stream() -> Stream:
    return build_scenario(draw_dataset(), "data-drift", ScenarioSettings(images_before=320, images_after=160))


def records(events: Iterator[Event]) -> Iterator[Record]:
    for offset, event in enumerate(events):
        message = encode(event, "/test")
        yield Record(
            topic=message.topic,
            partition=0,
            offset=offset,
            timestamp=int(event.time.timestamp() * 1000),
            key=message.key,
            value=message.value,
            headers=message.headers,
        )


def figures(folder: Path, *arguments: str) -> dict:
    path = folder / "figures.json"
    result = CliRunner().invoke(app, ["detect", *arguments, "--json", str(path)])
    assert result.exit_code == 0, result.output
    return json.loads(path.read_bytes())


def test_a_scenario_says_when_why_where_and_since_when(tmp_path: Path) -> None:
    found = figures(
        tmp_path,
        *SHORT,
        "--stationary-images",
        "320",
        "--images-per-false-alarm",
        "5000",
        "--report",
        str(tmp_path / "detect.html"),
        "--picture",
        str(tmp_path / "detect.png"),
    )
    assert found["changed_at_image"] == 320
    assert found["images_per_false_alarm"] == 5000
    assert {rate["stream"] for rate in found["false_alarms"]} == {"iid", "correlated"}
    assert {rate["images"] for rate in found["false_alarms"]} == {320}
    assert len(found["devices"]) == 4
    for device in found["devices"]:
        lasting = device["alarms"][-1]
        since = lasting["changed_since"]
        assert device["changed_at_sequence"] == 80
        assert lasting["alarm_at_sequence"] >= 80
        assert lasting["evidence"]
        assert since["low"] <= 80 <= since["high"]
    page = (tmp_path / "detect.html").read_text(encoding="utf-8")
    assert "Where drift is" in page
    assert "How often an alarm is false" in page
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"detect-layers.png"} | {
        f"detect-ward-scanner-{number}-{what}.png" for number in range(1, 5) for what in ("course", "images")
    }
    assert all(path.read_bytes().startswith(PNG) for path in tmp_path.glob("*.png"))


def test_a_recording_of_a_scenario_is_watched_as_the_scenario_is(tmp_path: Path, stream: Stream) -> None:
    recording = tmp_path / "incident.parquet"
    write_recording(recording, records(stream.events()))
    recorded = figures(tmp_path, "--data", "phantoms", "--stream", str(recording), "--stationary-images", "0")
    made = figures(tmp_path, *SHORT, "--stationary-images", "0")
    assert recorded["changed_at_image"] is None
    assert [device["alarms"] for device in recorded["devices"]] == [
        device["alarms"] for device in made["devices"]
    ]
    assert recorded["false_alarms"] == []


def test_a_recording_without_images_is_refused(tmp_path: Path, stream: Stream) -> None:
    recording = tmp_path / "labels.parquet"
    labels = (event for event in stream.events() if type(event).__name__ == "LabelConfirmed")
    write_recording(recording, records(labels))
    result = CliRunner().invoke(app, ["detect", "--data", "phantoms", "--stream", str(recording)])
    assert isinstance(result.exception, RecordingError)
    assert "holds no image" in str(result.exception)


def test_a_record_that_holds_no_event_is_counted_and_passed_over(tmp_path: Path, stream: Stream) -> None:
    recording = tmp_path / "damaged.parquet"
    rows = list(records(stream.events()))[:200]
    rows[3] = Record(rows[3].topic, 0, rows[3].offset, rows[3].timestamp, rows[3].key, b"{", ())
    write_recording(recording, rows)
    found = figures(tmp_path, "--data", "phantoms", "--stream", str(recording), "--stationary-images", "0")
    assert found["refused"] == 1


def test_fewer_images_than_a_micro_batch_are_refused_in_words(tmp_path: Path, stream: Stream) -> None:
    recording = tmp_path / "short.parquet"
    write_recording(recording, list(records(stream.events()))[:20])
    result = CliRunner().invoke(
        app, ["detect", "--data", "phantoms", "--stream", str(recording), "--stationary-images", "0"]
    )
    assert "micro-batch" in str(result.exception)


def test_what_is_neither_recording_nor_scenario_is_refused_with_the_choices() -> None:
    result = CliRunner().invoke(app, ["detect", "--stream", "yesterday"])
    assert result.exit_code == 2
    assert "concept-drift" in result.output
