from __future__ import annotations

import pytest
from medloop_schemas import Diagnosis
from medloop_services.event_aggregation.probability import (
    CAUSES,
    LIKELIHOOD,
    Errors,
    Evidence,
    Inputs,
    Mix,
    Names,
    Sensor,
    probabilities,
)
from medloop_services.event_aggregation.settings import EventAggregationSettings


def test_every_cause_and_every_finding_has_its_share() -> None:
    assert set(CAUSES) == set(Diagnosis)
    for kind in (Inputs, Mix, Names, Errors, Sensor):
        columns = zip(*(LIKELIHOOD[finding] for finding in kind), strict=True)  # type: ignore[attr-defined]
        assert [sum(column) for column in columns] == pytest.approx([1] * len(CAUSES)), kind
    assert all(0 < share < 1 for row in LIKELIHOOD.values() for share in row), "nothing is impossible"


def test_without_evidence_every_cause_is_as_likely() -> None:
    assert set(probabilities(Evidence()).values()) == {1 / len(CAUSES)}


def test_probabilities_are_bayes_rule() -> None:
    found = probabilities(Evidence(mix=Mix.MOVED, errors=Errors.RAISED))
    weights = [
        LIKELIHOOD[Mix.MOVED][place] * LIKELIHOOD[Errors.RAISED][place] for place in range(len(CAUSES))
    ]
    assert list(found.values()) == pytest.approx([weight / sum(weights) for weight in weights])


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (Evidence(Sensor.GOOD, Inputs.MOST, Mix.QUIET), Diagnosis.DATA_DRIFT),
        (Evidence(Sensor.GOOD, Inputs.SOME, Mix.QUIET, Names.KNOWN, Errors.EXPECTED), Diagnosis.DATA_DRIFT),
        (Evidence(Sensor.GOOD, Inputs.QUIET, Mix.QUIET, None, Errors.RAISED), Diagnosis.CONCEPT_DRIFT),
        (Evidence(Sensor.GOOD, Inputs.SOME, Mix.QUIET, Names.UNKNOWN), Diagnosis.NEW_CLASS),
        (Evidence(Sensor.GOOD, Inputs.QUIET, Mix.MOVED, Names.KNOWN, Errors.EXPECTED), Diagnosis.PRIOR_SHIFT),
        (Evidence(Sensor.FAULTY), Diagnosis.SENSOR_FAULT),
    ],
)
def test_what_each_cause_looks_like_names_it(evidence: Evidence, cause: Diagnosis) -> None:
    found = probabilities(evidence)
    assert max(found, key=lambda one: found[one]) is cause
    assert found[cause] >= EventAggregationSettings().confidence


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(Sensor.GOOD, Inputs.SOME, Mix.QUIET),
        Evidence(Sensor.GOOD, Inputs.SOME, Mix.MOVED, Names.KNOWN, Errors.EXPECTED),
    ],
)
def test_what_fits_two_causes_names_none(evidence: Evidence) -> None:
    assert max(probabilities(evidence).values()) < EventAggregationSettings().confidence
