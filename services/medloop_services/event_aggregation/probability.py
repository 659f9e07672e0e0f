"""What has changed, as probabilities: naive Bayes over what a site's signals and labels show.

P(cause | evidence) ∝ P(cause) · Π P(finding | cause), over the findings that there are; one that is awaited,
such as what labels will say, is left out of the product and so speaks for no cause (Duda & Hart 1973, §2;
evidence missing at random). Findings are coarse on purpose: five of them, two to four values each, taken to
be independent given the cause, which makes probabilities more extreme than they are; hence what is named
should be well above a half.

The table holds shares of random scenarios in which a finding was made soon after its cause set in, as
`benchmarks/drift/findings.py` counts them on PneumoniaMNIST and MedNIST, rounded and kept off zero, but for
two things. The mix of answers, whose rows are what its detector promises. And small shifts of the images, as
more often data drift than the scenarios' (of severity 3 and more) have it: a mild one, too, must be told.
Statistics are held against the model's own answer, so that under a prior shift all layers stay quiet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod

from medloop_schemas import Diagnosis


class Inputs(Enum):
    """What the data, feature, activation and decision layers show."""

    QUIET = "quiet"
    DEEP = "deep"
    """What the network makes of the images, and not the images themselves."""
    SLIGHT = "slight"
    """The images, but one detector alone says so, and of few."""
    SOME = "some"
    """The images, and several detectors say so; as far as one scalar shows it, not of most."""
    MOST = "most"


class Mix(Enum):
    """What the mix of predicted classes shows."""

    QUIET = "quiet"
    MOVED = "moved"


class Names(Enum):
    """What classes the labels name of images since the change."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    """Some that the model does not have."""


class Errors(Enum):
    """How often the labels overrule the model."""

    EXPECTED = "expected"
    RAISED = "raised"


class Sensor(Enum):
    """What a device's frames are."""

    GOOD = "good"
    FAULTY = "faulty"


Finding = Inputs | Mix | Names | Errors | Sensor

CAUSES = (
    Diagnosis.DATA_DRIFT,
    Diagnosis.CONCEPT_DRIFT,
    Diagnosis.NEW_CLASS,
    Diagnosis.PRIOR_SHIFT,
    Diagnosis.SENSOR_FAULT,
)

LIKELIHOOD: Mapping[Finding, tuple[float, float, float, float, float]] = {
    # Columns as in CAUSES; the rows of each kind add up to 1.
    Inputs.QUIET: (0.002, 0.942, 0.02, 0.925, 0.01),
    Inputs.DEEP: (0.020, 0.030, 0.02, 0.015, 0.01),
    Inputs.SLIGHT: (0.006, 0.020, 0.02, 0.025, 0.01),
    Inputs.SOME: (0.190, 0.004, 0.85, 0.030, 0.05),
    Inputs.MOST: (0.782, 0.004, 0.09, 0.005, 0.92),
    Mix.QUIET: (0.50, 0.95, 0.50, 0.10, 0.10),
    Mix.MOVED: (0.50, 0.05, 0.50, 0.90, 0.90),
    Names.KNOWN: (0.9998, 0.9998, 0.002, 0.9998, 0.9998),
    Names.UNKNOWN: (0.0002, 0.0002, 0.998, 0.0002, 0.0002),
    Errors.EXPECTED: (0.50, 0.03, 0.95, 0.95, 0.20),
    Errors.RAISED: (0.50, 0.97, 0.05, 0.05, 0.80),
    Sensor.GOOD: (0.999, 0.999, 0.999, 0.999, 0.01),
    Sensor.FAULTY: (0.001, 0.001, 0.001, 0.001, 0.99),
}
"""Finding → how often it is made under each cause."""


@dataclass(frozen=True)
class Evidence:
    """What is found at some devices; None where it is awaited."""

    sensor: Sensor | None = None
    inputs: Inputs | None = None
    mix: Mix | None = None
    names: Names | None = None
    errors: Errors | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those that there are."""
        found = (self.sensor, self.inputs, self.mix, self.names, self.errors)
        return tuple(finding for finding in found if finding is not None)

    @property
    def labels_awaited(self) -> bool:
        """Whether labels would tell more."""
        return self.names is None or self.errors is None


def probabilities(evidence: Evidence) -> dict[Diagnosis, float]:
    """Return each cause's probability, given that something has changed; without evidence, all the same."""
    rows = [LIKELIHOOD[finding] for finding in evidence.findings]
    weights = [prod(row[column] for row in rows) for column in range(len(CAUSES))]
    total = sum(weights)
    return {cause: weight / total for cause, weight in zip(CAUSES, weights, strict=True)}
