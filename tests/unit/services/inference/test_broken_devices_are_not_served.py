from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from medloop_model import pretrained
from medloop_model.checkpoint import load_package
from medloop_schemas import (
    Diagnosis,
    DriftDiagnosed,
    Frame,
    ImageAcquired,
    PredictionMade,
    ReleaseChanged,
    ReleaseStage,
    Scope,
)
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context
from medloop_services.bus.health import Health
from medloop_services.bus.processor import MapProcessor
from medloop_services.inference.app import build
from medloop_services.inference.withholding import BROKEN, WITHHELD, Withholding

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def message(
    number: int,
    *devices: str,
    open_: bool = True,
    diagnosis: Diagnosis | None = Diagnosis.SENSOR_FAULT,
    incident: str = "first",
    site: str = "ward",
) -> DriftDiagnosed:
    return DriftDiagnosed(
        time=EPOCH,
        site_id=site,
        number=number,
        incident=incident,
        open=open_,
        base_version="ward-0",
        diagnosis=diagnosis,
        probabilities={Diagnosis.SENSOR_FAULT: 1.0},
        scope=Scope.DEVICE,
        onset=dict.fromkeys(devices, 100),
        evidence=("scanner-1: the frames show nothing since image 100.",),
    )


def test_a_broken_device_is_withheld_until_the_closing_message() -> None:
    withholding = Withholding()
    withholding.apply(message(0, "scanner-1"))
    assert withholding.withholds("ward", "scanner-1")
    assert not withholding.withholds("ward", "scanner-2")
    assert not withholding.withholds("other", "scanner-1")
    withholding.apply(message(1, "scanner-1", open_=False))
    assert not withholding.withholds("ward", "scanner-1")


def test_repeats_and_older_messages_change_nothing() -> None:
    withholding = Withholding()
    messages = [message(0, "a"), message(1, "a", "b"), message(2, "b"), message(3, "b", open_=False)]
    for one in messages:
        withholding.apply(one)
        for earlier in messages[: one.number + 1]:  # a follower that reads from the beginning again
            withholding.apply(earlier)
            assert [withholding.withholds("ward", name) for name in "ab"] == [
                one.open and name in one.onset for name in "ab"
            ]


@pytest.mark.parametrize("diagnosis", [None, *sorted(set(Diagnosis) - {Diagnosis.SENSOR_FAULT})])
def test_no_other_diagnosis_stops_a_device(diagnosis: Diagnosis | None) -> None:
    withholding = Withholding()
    withholding.apply(message(0, "a", diagnosis=diagnosis))
    assert not withholding.withholds("ward", "a")


def test_another_incident_of_the_site_does_not_end_a_fault() -> None:
    withholding = Withholding()
    withholding.apply(message(0, "a"))
    withholding.apply(message(1, "a", incident="second", diagnosis=Diagnosis.DATA_DRIFT, open_=False))
    assert withholding.withholds("ward", "a")


def test_it_is_told_by_health_and_metric_while_it_lasts() -> None:
    health = Health()
    withholding = Withholding(health)
    withholding.apply(message(0, "scanner-1", "scanner-2", site="told"))
    (sentence,) = health.degraded.values()
    assert "scanner-1, scanner-2 not served" in sentence
    assert "the frames show nothing" in sentence
    assert BROKEN.labels("told")._value.get() == 2
    withholding.apply(message(1, "scanner-1", open_=False, site="told"))
    assert health.degraded == {}
    assert BROKEN.labels("told")._value.get() == 0


def test_its_images_are_measured_and_their_predictions_marked(tmp_path: Path) -> None:
    package = pretrained.path("phantom")
    architecture = load_package(package, parts=()).architecture
    store = ArtifactStore(tmp_path.as_uri(), cache=tmp_path / "cache")
    context = Context(store)
    service = build(context)
    followers = {follower.event: follower.apply for follower in service.followers}
    followers[ReleaseChanged](
        ReleaseChanged(
            time=EPOCH,
            site_id="ward",
            number=0,
            version="ward-0",
            stage=ReleaseStage.STABLE,
            package=store.put(package),
            classes=architecture.classes,
            reason="a test",
        )
    )
    followers[DriftDiagnosed](message(0, "broken"))
    (processor,) = service.processors
    assert isinstance(processor, MapProcessor)
    before = WITHHELD.labels("broken")._value.get()
    outcomes = processor.map([_image(device, architecture.image_size) for device in ("good", "broken")])
    made = [one for outcome in outcomes if not isinstance(outcome, Exception) for one in outcome]
    assert all(isinstance(one, PredictionMade) for one in made)
    assert [one.withheld for one in made if isinstance(one, PredictionMade)] == [False, True]
    assert WITHHELD.labels("broken")._value.get() == before + 1


def _image(device: str, side: int) -> ImageAcquired:
    return ImageAcquired(
        time=EPOCH,
        image_id=f"{device}-0",
        device_id=device,
        site_id="ward",
        study_id="study",
        sequence=0,
        frame=Frame.inline(bytes(side * side), height=side, width=side),
    )
