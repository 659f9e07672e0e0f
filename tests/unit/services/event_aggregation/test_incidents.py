"""What is said of a site that has changed: causes without training, incidents, requests for labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from medloop_schemas import (
    AccuracyEstimate,
    AdaptationRequested,
    DetectorReading,
    Diagnosis,
    DriftDiagnosed,
    DriftSignalled,
    Event,
    LabelEvidence,
    LabelRequested,
    Layer,
    Scope,
    UnlabelledImage,
)
from medloop_services.event_aggregation.aggregation import step
from medloop_services.event_aggregation.settings import EventAggregationSettings
from medloop_services.event_aggregation.state import AggregationState

SETTINGS = EventAggregationSettings()
ONSET = 100
DEVICES = ("scanner-1", "scanner-2", "scanner-3")


def reading(detector: str, layer: Layer, statistic: str, alarmed: bool) -> DetectorReading:
    return DetectorReading(
        detector=detector,
        layer=layer,
        statistic=statistic,
        value=5.0 if alarmed else 1.0,
        threshold=3.0,
        alarmed=alarmed,
        since_sequence=ONSET if alarmed else None,
    )


def signal(
    device: str,
    sequence: int,
    *,
    data: bool = False,
    feature: bool = False,
    prior: bool = False,
    fault: str = "",
    errors: bool = False,
    share: float = 0.1,
    labelled_to: int | None = None,
    version: str = "ward-1",
    unlabelled: Sequence[UnlabelledImage] = (),
) -> DriftSignalled:
    return DriftSignalled(
        time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=sequence),
        device_id=device,
        site_id="site",
        model_version=version,
        sequence=sequence,
        images_seen=sequence + 1,
        readings=(
            reading("cusum", Layer.DATA, "noise", data),
            reading("ks", Layer.DATA, "sharpness", data),
            reading("mmd", Layer.FEATURE, "embedding", feature),
            reading("prior", Layer.DECISION, "class_mix", prior),
            reading("sensor", Layer.DATA, "black", fault == "black"),
            reading("sensor", Layer.DATA, "frozen", fault == "frozen"),
            reading("cusum", Layer.LABEL, "error", errors),
        ),
        labels=LabelEvidence(confirmed=64, errors=6, expected_error=0.1, latest_sequence=labelled_to),
        shifted_share=share,
        accuracy=AccuracyEstimate(expected=0.8, low=0.7, high=0.9, images=128),
        unlabelled=tuple(unlabelled),
    )


def run(
    signals: Iterable[DriftSignalled], state: AggregationState | None = None
) -> tuple[AggregationState, list[Event]]:
    state, outputs = state or AggregationState(site_id="site"), list[Event]()
    for event in signals:
        state, new = step(state, event, SETTINGS)
        outputs += new
    return state, outputs


def said(outputs: Sequence[Event]) -> list[DriftDiagnosed]:
    return [output for output in outputs if isinstance(output, DriftDiagnosed)]


def asked(outputs: Sequence[Event]) -> list[LabelRequested]:
    return [output for output in outputs if isinstance(output, LabelRequested)]


def trained(outputs: Sequence[Event]) -> list[AdaptationRequested]:
    return [output for output in outputs if isinstance(output, AdaptationRequested)]


def stretch(first: int, until: int, only: Sequence[str] = DEVICES, **shown: object) -> list[DriftSignalled]:
    """Signals of all devices in turn; `shown` is of `only` some of them."""
    return [
        signal(device, n, **(shown if device in only else {}))  # type: ignore[arg-type]
        for n in range(first, until, 16)
        for device in DEVICES
    ]


QUIET = stretch(15, 96)


def test_a_site_where_nothing_happens_says_nothing() -> None:
    assert run(stretch(15, 1000))[1] == []


# --- sensor fault ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["black", "frozen"])
def test_a_broken_device_is_diagnosed_at_once_alone_and_trains_nothing(fault: str) -> None:
    broken = stretch(111, 400, ["scanner-2"], data=True, share=0.95, errors=True, fault=fault)
    _, outputs = run(QUIET + broken)
    first, *_ = said(outputs)
    assert (first.diagnosis, first.open, first.scope) == (Diagnosis.SENSOR_FAULT, True, Scope.DEVICE)
    assert first.onset == {"scanner-2": ONSET}
    assert first.probabilities[Diagnosis.SENSOR_FAULT] > SETTINGS.confidence
    assert "scanner-2" in first.evidence[0]
    assert first.time == signal("scanner-2", 111).time
    assert trained(outputs) == []
    assert {message.incident for message in said(outputs)} == {first.incident}


def test_a_fault_is_closed_once_the_frames_are_pictures_again() -> None:
    state, _ = run(QUIET + stretch(111, 200, ["scanner-2"], data=True, share=0.9, fault="black"))
    # What the windows still hold of the black frames is no drift.
    lingering = stretch(207, 400, ["scanner-2"], data=True, share=0.9, errors=True)
    state, outputs = run(lingering, state)
    (last,) = [message for message in said(outputs) if not message.open]
    assert last.diagnosis is Diagnosis.SENSOR_FAULT
    since = (last.time - signal("scanner-2", 191).time).total_seconds()
    assert SETTINGS.closing_images <= since <= SETTINGS.closing_images + 16
    assert state.fault is None
    assert trained(outputs) == []
    assert [message for message in said(outputs) if message.diagnosis is not Diagnosis.SENSOR_FAULT] == []


def later(signals: Sequence[DriftSignalled], hours: int) -> list[DriftSignalled]:
    return [each.model_copy(update={"time": each.time + timedelta(hours=hours)}) for each in signals]


@pytest.mark.parametrize("hours", [25, 24 * 365])
def test_a_broken_device_that_falls_silent_stays_broken(hours: int) -> None:
    """Others' clocks and its own silence tell nothing of its sensor: only its own pictures do."""
    state, _ = run(QUIET + stretch(111, 200, ["scanner-1"], fault="black"))
    others = [signal("scanner-2", n) for n in range(207, 800, 16)]
    state, outputs = run(later(others, hours), state)
    assert state.fault is not None
    assert all(message.open for message in said(outputs))
    own = [signal("scanner-1", n) for n in range(207, 240 + SETTINGS.closing_images, 16)]
    state, outputs = run(later(own, hours + 1), state)
    assert state.fault is None
    assert [message.diagnosis for message in said(outputs) if not message.open] == [Diagnosis.SENSOR_FAULT]


def test_a_clock_that_was_never_set_stops_nothing() -> None:
    unset = signal("scanner-1", 111).model_copy(update={"time": datetime(1, 1, 1, tzinfo=UTC)})
    state, outputs = run([*QUIET, unset])
    assert state.devices["scanner-1"].signal.sequence == 111
    assert outputs == []


def test_a_drift_that_outlasts_a_fault_is_diagnosed_in_the_end() -> None:
    state, _ = run(QUIET + stretch(111, 200, fault="black", data=True, share=0.9))
    _, outputs = run(stretch(207, 800, data=True, share=0.9), state)
    assert [request.diagnosis for request in trained(outputs)][:1] == [Diagnosis.DATA_DRIFT]


def test_one_broken_device_does_not_hide_the_others_drift() -> None:
    signals = [
        signal(device, n, data=True, share=0.9, fault="black" if device == "scanner-1" else "")
        for n in range(111, 200, 16)
        for device in DEVICES
    ]
    _, outputs = run(QUIET + signals)
    assert {message.diagnosis for message in said(outputs)} == {
        Diagnosis.SENSOR_FAULT,
        Diagnosis.DATA_DRIFT,
    }
    (request,) = trained(outputs)
    assert set(request.onset) == {"scanner-2", "scanner-3"}


def test_a_second_broken_device_joins_the_incident() -> None:
    both = stretch(111, 200, ["scanner-1"], fault="black") + stretch(
        207, 300, ["scanner-1", "scanner-2"], fault="black"
    )
    _, outputs = run(QUIET + both)
    first, second = said(outputs)[:2]
    assert (set(first.onset), set(second.onset)) == ({"scanner-1"}, {"scanner-1", "scanner-2"})
    assert second.incident == first.incident
    assert second.scope is Scope.SITE


# --- prior shift ----------------------------------------------------------------------------------------


def test_other_patients_with_quiet_inputs_and_few_errors_are_a_prior_shift_and_train_nothing() -> None:
    _, outputs = run(QUIET + stretch(111, 400, prior=True, labelled_to=160))
    first, *_ = said(outputs)
    assert (first.diagnosis, first.scope) == (Diagnosis.PRIOR_SHIFT, Scope.SITE)
    assert first.probabilities[Diagnosis.PRIOR_SHIFT] > SETTINGS.confidence
    assert "mix of the model's answers" in first.evidence[0]
    assert trained(outputs) == []


def test_a_mix_that_moves_for_a_short_time_is_a_day_of_one_kind_of_patient() -> None:
    assert run(QUIET + stretch(111, 160, prior=True))[1] == []


def test_a_moved_mix_with_shifted_inputs_is_data_drift() -> None:
    _, outputs = run(QUIET + stretch(111, 300, prior=True, data=True, share=0.8))
    assert [request.diagnosis for request in trained(outputs)] == [Diagnosis.DATA_DRIFT]


def test_a_moved_mix_with_a_small_shift_of_the_inputs_is_likelier_data_drift_but_none_is_named() -> None:
    _, outputs = run(QUIET + stretch(111, 300, prior=True, data=True, share=0.3, labelled_to=200))
    assert trained(outputs) == []
    last = said(outputs)[-1]
    assert last.diagnosis is None
    assert max(last.probabilities, key=lambda one: last.probabilities[one]) is Diagnosis.DATA_DRIFT


def test_a_small_shift_stays_undecided_where_nobody_watches_the_mix_of_answers() -> None:
    blind = [
        event.model_copy(update={"readings": tuple(one for one in event.readings if one.detector != "prior")})
        for event in QUIET + stretch(111, 300, data=True, share=0.3, labelled_to=200)
    ]
    _, outputs = run(blind)
    assert {message.diagnosis for message in said(outputs)} == {None}
    assert trained(outputs) == []


def test_a_network_that_answers_otherwise_of_images_that_look_as_ever_is_no_proof_of_other_patients() -> None:
    _, outputs = run(QUIET + stretch(111, 300, feature=True, prior=True, labelled_to=200))
    assert {message.diagnosis for message in said(outputs)} == {None}
    _, quiet = run(QUIET + stretch(111, 300, prior=True, labelled_to=200))
    assert said(quiet)[-1].diagnosis is Diagnosis.PRIOR_SHIFT
    assert trained(outputs) == trained(quiet) == []


def test_a_moved_mix_is_no_input_alarm() -> None:
    _, outputs = run(QUIET + stretch(111, 300, prior=True, errors=True, labelled_to=200))
    assert not any("inputs have shifted" in " ".join(one.evidence) for one in said(outputs))


# --- what is said ---------------------------------------------------------------------------------------


def test_probabilities_are_of_every_cause_and_sum_to_one() -> None:
    _, outputs = run(QUIET + stretch(111, 300, data=True, share=0.3))
    for message in said(outputs):
        assert set(message.probabilities) == set(Diagnosis)
        assert sum(message.probabilities.values()) == pytest.approx(1)


def test_an_undecided_incident_says_what_it_waits_for_and_how_right_the_model_may_be() -> None:
    _, outputs = run(QUIET + stretch(111, 143, data=True, share=0.3))
    first, *_ = said(outputs)
    assert first.diagnosis is None
    assert max(first.probabilities.values()) < SETTINGS.confidence
    assert "waiting for the labels" in (first.waiting_for or "")
    assert first.accuracy is not None
    assert (first.accuracy.expected, first.accuracy.images) == (pytest.approx(0.8), 128 * len(first.onset))
    assert trained(outputs) == []


def test_once_labels_tell_nothing_is_estimated() -> None:
    _, outputs = run(QUIET + stretch(111, 300, data=True, share=0.3, labelled_to=200))
    decided = [message for message in said(outputs) if message.diagnosis is not None]
    assert decided
    assert all(message.accuracy is None for message in decided)


def test_an_incident_is_said_when_it_changes_and_now_and_then() -> None:
    signals = QUIET + stretch(111, 1600, data=True, share=0.9)
    _, outputs = run(signals)
    messages = said(outputs)
    assert 2 <= len(messages) <= len(signals) / SETTINGS.signals_per_repeat + 2
    assert [message.number for message in messages] == list(range(len(messages)))
    assert len({message.event_id for message in messages}) == len(messages)
    assert len({message.incident for message in messages}) == 1


def test_an_incident_is_closed_when_the_stream_is_back_and_a_later_one_is_another() -> None:
    again = stretch(607, 700, data=True, share=0.9)
    state, outputs = run(QUIET + stretch(111, 300, data=True, share=0.9) + stretch(303, 607))
    closed = said(outputs)[-1]
    assert (closed.open, closed.diagnosis) == (False, Diagnosis.DATA_DRIFT)
    assert closed.evidence[0].startswith("Closed")
    assert state.incident is None
    later = said(run(again, state)[1])
    assert later[0].incident != closed.incident


def test_a_short_silence_closes_nothing() -> None:
    flicker = [*stretch(111, 300, data=True, share=0.9), *stretch(303, 319), *stretch(319, 500, data=True)]
    assert all(message.open for message in said(run(QUIET + flicker)[1]))


def test_an_incident_is_closed_when_its_version_serves_no_more() -> None:
    state, _ = run(QUIET + stretch(111, 300, data=True, share=0.9))
    _, outputs = run(stretch(303, 319, version="ward-2"), state)
    *leaving, closed = said(outputs)
    assert all(message.open for message in leaving)
    assert not closed.open
    assert "ward-1" in closed.evidence[0]


def test_a_diagnosis_is_not_taken_back_while_it_is_likely() -> None:
    state, _ = run(QUIET + stretch(111, 300, data=True, share=0.9))
    weaker = stretch(303, 600, data=True, share=0.4, labelled_to=200)
    assert {message.diagnosis for message in said(run(weaker, state)[1])} == {Diagnosis.DATA_DRIFT}


def test_the_state_survives_its_json() -> None:
    state, _ = run(QUIET + stretch(111, 300, ["scanner-1"], fault="black"))
    state, _ = run(stretch(303, 400, ["scanner-2"], data=True), state)
    assert AggregationState.model_validate_json(state.model_dump_json()) == state


# --- label requests -------------------------------------------------------------------------------------


def offered(device: str, images: int = 40) -> list[UnlabelledImage]:
    """Images of two predicted classes, before and after the onset, in some order."""
    return [
        UnlabelledImage(
            image_id=f"{device}-{n}", sequence=ONSET - images // 2 + (7 * n) % images, predicted_class=n % 2
        )
        for n in range(images)
    ]


def undecided(device: str, sequence: int) -> DriftSignalled:
    return signal(device, sequence, data=True, share=0.3, unlabelled=offered(device))


UNDECIDED = [undecided(device, n) for n in range(111, 300, 16) for device in DEVICES]


def test_labels_are_asked_for_while_they_would_decide_the_same_number_of_every_stratum() -> None:
    state, outputs = run(QUIET + UNDECIDED)
    requests = asked(outputs)
    assert state.incident is not None
    strata = {(one.device_id, one.predicted_class, one.after_onset) for one in requests}
    assert len(strata) == len(DEVICES) * 2 * 2
    assert len(requests) == len(strata) * SETTINGS.stratum_labels <= SETTINGS.requested_labels
    assert len({one.image_id for one in requests}) == len(requests), "no image is asked for twice"
    assert all(one.after_onset == (one.sequence >= ONSET) for one in requests)
    assert {one.incident for one in requests} == {state.incident.message.incident}
    assert all("waiting for" in one.reason for one in requests)


def test_the_first_of_a_stratum_are_taken_as_they_were_drawn() -> None:
    _, outputs = run(QUIET + UNDECIDED)
    chosen = [one.image_id for one in asked(outputs) if one.device_id == "scanner-1" and one.after_onset]
    stratum = [image.image_id for image in offered("scanner-1") if image.sequence >= ONSET]
    assert chosen == [name for name in stratum if name in chosen]
    assert set(chosen) <= set(stratum[: 2 * SETTINGS.stratum_labels + 4])


def test_requests_are_bounded_in_an_incident() -> None:
    few = EventAggregationSettings(requested_labels=5)
    state, count = AggregationState(site_id="site"), 0
    for event in QUIET + UNDECIDED:
        state, outputs = step(state, event, few)
        count += len(asked(outputs))
    assert count == 5


def test_no_labels_are_asked_for_once_a_cause_is_named_or_labels_tell() -> None:
    named = [
        signal(device, n, data=True, share=0.9, unlabelled=offered(device))
        for n in range(111, 300, 16)
        for device in DEVICES
    ]
    assert asked(run(QUIET + named)[1]) == []


def test_a_replay_asks_for_the_same_labels() -> None:
    assert run(QUIET + UNDECIDED)[1] == run(QUIET + UNDECIDED)[1]
    repeated = [event for one in QUIET + UNDECIDED for event in (one, one)]
    assert run(repeated)[1] == run(QUIET + UNDECIDED)[1]
