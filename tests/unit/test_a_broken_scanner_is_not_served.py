"""The whole loop in one process, while the shutter of one scanner of four stays closed for a time."""

from __future__ import annotations

from pathlib import Path

from medloop_schemas import (
    AdaptationRequested,
    Diagnosis,
    DriftDiagnosed,
    Event,
    ExampleLabelled,
    Frame,
    ImageAcquired,
    PredictionMade,
)
from medloop_services.loop import InProcessLoop, services
from medloop_services.replay.dataset import draw_dataset
from medloop_services.replay.scenario import build_scenario
from medloop_services.replay.settings import ScenarioSettings
from recorded_loop import RECORDED_SITE, context

BROKEN = range(64, 160)
"""Images of the scanner, of which nothing can be seen."""
TAKEN = 256
NOTICED = 2 * 16
BACK = NOTICED + 32 + 16


def black(event: Event, scanner: str) -> Event:
    if isinstance(event, ImageAcquired) and event.device_id == scanner and event.sequence in BROKEN:
        frame = event.frame
        nothing = bytes(frame.height * frame.width * frame.channels)
        dark = Frame.inline(nothing, height=frame.height, width=frame.width, channels=frame.channels)
        return event.model_copy(update={"frame": dark})
    return event


def test_a_broken_scanner_is_measured_but_not_served_until_it_is_back(tmp_path: Path) -> None:
    stream = build_scenario(
        draw_dataset(),
        "data-drift",
        ScenarioSettings(site=RECORDED_SITE, images_before=4 * TAKEN, images_after=0),
    )
    scanner = stream.devices[0]
    seen: list[Event] = []
    loop = InProcessLoop(services(context(tmp_path, [RECORDED_SITE])), seen.append)
    for event in stream.events():
        loop.publish([black(event, scanner)])
    assert loop.dead_letters == []

    made = [event for event in seen if isinstance(event, PredictionMade)]
    assert len(made) == 4 * TAKEN, "every image is measured"
    withheld = {event.sequence for event in made if event.withheld}
    assert {event.device_id for event in made if event.withheld} == {scanner}
    assert withheld == set(range(min(withheld), max(withheld) + 1)), "one stretch"
    assert BROKEN.start < min(withheld) <= BROKEN.start + NOTICED
    assert BROKEN.stop <= max(withheld) < BROKEN.stop + BACK

    said = [event for event in seen if isinstance(event, DriftDiagnosed)]
    assert {message.diagnosis for message in said} == {Diagnosis.SENSOR_FAULT}
    assert [message.open for message in said][-1] is False
    assert not [event for event in seen if isinstance(event, AdaptationRequested)]
    taught = {
        event.image_sequence
        for event in seen
        if isinstance(event, ExampleLabelled) and event.device_id == scanner
    }
    assert taught == set(range(TAKEN)) - withheld
