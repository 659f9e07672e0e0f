from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from medloop_schemas import (
    AdaptationRequested,
    DetectorReading,
    Diagnosis,
    DriftSignalled,
    LabelEvidence,
    Layer,
    Strategy,
)
from medloop_services.event_aggregation.aggregation import step
from medloop_services.event_aggregation.diagnosis import STRATEGIES
from medloop_services.event_aggregation.settings import EventAggregationSettings
from medloop_services.event_aggregation.state import AggregationState

SETTINGS = EventAggregationSettings()
ONSET = 100


def reading(
    layer: Layer, detector: str, statistic: str, alarmed: bool, since: int | None = ONSET
) -> DetectorReading:
    return DetectorReading(
        detector=detector,
        layer=layer,
        statistic=statistic,
        value=5.0 if alarmed else 1.0,
        threshold=3.0,
        alarmed=alarmed,
        since_sequence=since if alarmed else None,
    )


def signal(
    device: str,
    sequence: int,
    *,
    data: bool = False,
    corroborated: bool = True,
    errors: bool = False,
    share: float = 0.1,
    unknown: int = 0,
    labelled_to: int | None = None,
    since: int | None = ONSET,
    version: str = "ward-1",
    labels_seen: int = 0,
    hours: int = 0,
) -> DriftSignalled:
    return DriftSignalled(
        time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=sequence, hours=hours),
        device_id=device,
        site_id="site",
        model_version=version,
        sequence=sequence,
        images_seen=sequence + 1,
        labels_seen=labels_seen,
        readings=(
            reading(Layer.DATA, "cusum", "noise", data, since),
            reading(Layer.DATA, "ks", "sharpness", data and corroborated, since),
            reading(Layer.DECISION, "prior", "class_mix", False),
            reading(Layer.LABEL, "cusum", "error", errors, since),
            reading(Layer.LABEL, "labels", "unknown_class", unknown > 0, since),
        ),
        labels=LabelEvidence(
            confirmed=64,
            errors=30 if errors else 6,
            expected_error=0.1,
            unknown=unknown,
            unknown_classes={2: "nodule"} if unknown else {},
            latest_sequence=labelled_to,
        ),
        shifted_share=share,
    )


def run(
    signals: Sequence[DriftSignalled], state: AggregationState | None = None
) -> tuple[AggregationState, list[AdaptationRequested]]:
    state, requests = state or AggregationState(site_id="site"), list[AdaptationRequested]()
    for event in signals:
        state, outputs = step(state, event, SETTINGS)
        requests += [output for output in outputs if isinstance(output, AdaptationRequested)]
    return state, requests


DEVICES = ("scanner-1", "scanner-2", "scanner-3")
QUIET = [signal(device, 95) for device in DEVICES]


def test_quiet_signals_request_nothing() -> None:
    state, requests = run([signal(device, n) for n in range(15, 400, 16) for device in DEVICES])
    assert requests == []
    assert state.undecided is None


def test_shifted_inputs_of_most_images_are_data_drift() -> None:
    alarmed = [signal(device, n, data=True, share=0.8) for n in (111, 127) for device in DEVICES]
    _, (request,) = run(QUIET + alarmed)
    assert (request.diagnosis, request.strategy) == (Diagnosis.DATA_DRIFT, Strategy.SHALLOW_EWC)
    assert (request.base_version, request.detector) == ("ward-1", "cusum")
    assert set(request.onset) == set(DEVICES)
    assert request.onset["scanner-1"] == ONSET
    assert "80%" in request.evidence[0]
    assert any("noise" in sentence for sentence in request.evidence)


def test_a_single_alarmed_micro_batch_is_not_enough() -> None:
    _, requests = run(QUIET + [signal(device, 111, data=True, share=0.9) for device in DEVICES])
    assert requests == []


def test_an_alarm_that_breaks_off_starts_anew() -> None:
    flicker = [signal(d, n, data=n % 32 == 15, share=0.9) for n in range(111, 400, 16) for d in DEVICES]
    assert run(QUIET + flicker)[1] == []


def test_one_device_of_three_must_be_alarmed_for_long() -> None:
    def alone(until: int) -> list[AdaptationRequested]:
        signals = [
            signal(device, n, data=device == "scanner-1", share=0.9)
            for n in range(111, until, 16)
            for device in DEVICES
        ]
        return run(QUIET + signals)[1]

    assert alone(111 + 96) == []
    (request,) = alone(111 + 128)
    assert request.onset["scanner-1"] == ONSET
    assert request.onset["scanner-2"] > 111 + 80, "a quiet device has not changed yet"


def test_more_errors_with_quiet_inputs_are_concept_drift() -> None:
    wrong = [signal(device, n, errors=True) for n in (143, 159) for device in DEVICES]
    _, (request,) = run(QUIET + wrong)
    assert (request.diagnosis, request.strategy) == (Diagnosis.CONCEPT_DRIFT, Strategy.DISTIL_ALL)
    assert "The inputs are as on the reference, in every layer." in request.evidence
    assert "10.0%" in " ".join(request.evidence)


def test_a_policy_is_the_sites_so_a_quiet_device_is_dated_like_its_peers() -> None:
    wrong = [signal(d, n, errors=d != "scanner-3") for n in (143, 159) for d in DEVICES]
    _, (request,) = run(QUIET + wrong)
    assert request.onset["scanner-1"] == ONSET
    assert abs(request.onset["scanner-3"] - ONSET) <= 16


def test_labels_of_a_class_the_model_lacks_come_before_everything_else() -> None:
    arriving = [
        signal(device, 127, data=True, errors=True, share=0.9, unknown=1, since=105) for device in DEVICES
    ]
    _, (request,) = run(QUIET + arriving)
    assert (request.diagnosis, request.strategy) == (Diagnosis.NEW_CLASS, Strategy.EXPAND_HEAD)
    assert request.new_classes == {2: "nodule"}
    assert request.onset == dict.fromkeys(DEVICES, 105)


def test_one_odd_label_is_no_new_class() -> None:
    assert run([*QUIET, signal("scanner-1", 127, unknown=2)])[1] == []


def small_shift(*, labelled_to: int, corroborated: bool = True, errors: bool = False) -> list[DriftSignalled]:
    return [
        signal(
            device,
            n,
            data=True,
            share=0.3,
            labelled_to=labelled_to,
            corroborated=corroborated,
            errors=errors,
        )
        for n in range(111, 200, 16)
        for device in DEVICES
    ]


def test_a_small_shift_waits_for_labels_and_says_so() -> None:
    state, requests = run(QUIET + small_shift(labelled_to=ONSET + 3))
    assert requests == []
    assert state.undecided is not None
    assert "12 so far" in state.undecided


def test_labels_that_name_no_new_class_settle_a_small_shift_as_data_drift() -> None:
    _, (request,) = run(QUIET + small_shift(labelled_to=ONSET + 20))
    assert request.diagnosis is Diagnosis.DATA_DRIFT


def test_a_small_shift_that_one_detector_sees_is_concept_drift_if_labels_object() -> None:
    lonely = small_shift(labelled_to=ONSET + 20, corroborated=False)
    assert run(QUIET + lonely)[1] == []
    objected = small_shift(labelled_to=ONSET + 20, corroborated=False, errors=True)
    _, (request,) = run(QUIET + objected)
    assert request.diagnosis is Diagnosis.CONCEPT_DRIFT


def drift(first: int = 111, until: int = 1200, version: str = "ward-1") -> list[DriftSignalled]:
    return [
        signal(device, n, data=True, share=0.9, version=version)
        for n in range(first, until, 16)
        for device in DEVICES
    ]


def test_an_open_request_is_repeated_now_and_then_unchanged() -> None:
    signals = QUIET + drift()
    _, requests = run(signals)
    assert 2 <= len(requests) <= len(signals) / SETTINGS.signals_per_repeat + 1
    assert all(request == requests[0] for request in requests)


def test_a_canary_does_not_close_a_request_and_a_release_does() -> None:
    state, _ = run(QUIET + drift(until=200))
    state, _ = run([signal("scanner-1", 207, version="ward-2")], state)
    assert state.open is not None
    state, _ = run([signal(device, 223, version="ward-2") for device in DEVICES], state)
    assert state.open is None


def test_a_released_version_that_drifts_again_is_another_request() -> None:
    state, (first, *_) = run(QUIET + drift(until=200))
    released = [signal(device, 223, version="ward-2") for device in DEVICES]
    _, (second, *_) = run(released + drift(first=239, until=300, version="ward-2"), state)
    assert (second.base_version, first.base_version) == ("ward-2", "ward-1")
    assert second.event_id != first.event_id


def test_a_device_silent_for_a_day_does_not_count() -> None:
    later = [signal("scanner-1", n, data=True, share=0.9, hours=30) for n in (111, 127)]
    _, requests = run(QUIET + later)
    assert len(requests) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 17), max_size=8))
def test_repeated_and_late_signals_change_nothing(places: list[int]) -> None:
    signals = QUIET + drift(until=191)
    repeated = list(signals)
    for place in sorted(places, reverse=True):
        late = min(place + 4, len(repeated))
        repeated.insert(late, signals[place])
    assert run(repeated) == run(signals)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(3, 50), max_size=12))
def test_lost_signals_do_not_change_the_diagnosis(lost: set[int]) -> None:
    signals = [event for n, event in enumerate(QUIET + drift(until=400)) if n not in lost]
    requests = run(signals)[1]
    assert {request.diagnosis for request in requests} == {Diagnosis.DATA_DRIFT}
    assert len({request.event_id for request in requests}) == 1


def test_the_state_survives_its_json() -> None:
    state, _ = run(QUIET + drift(until=200))
    assert AggregationState.model_validate_json(state.model_dump_json()) == state


def test_what_can_be_learned_has_a_strategy() -> None:
    assert set(Diagnosis) - STRATEGIES.keys() == {Diagnosis.PRIOR_SHIFT, Diagnosis.SENSOR_FAULT}
