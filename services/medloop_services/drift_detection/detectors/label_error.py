"""CUSUM of the log-likelihood ratio of errors that late labels reveal: the only witness of a concept drift.

S_t = max(0, S_{t−1} + log p₁/p₀) on an error, max(0, S_{t−1} + log (1−p₁)/(1−p₀)) otherwise (Page 1954;
Reynolds & Stoumbos 1999 for Bernoulli data). p₀ is the reference's error rate of the predicted class, so that
a day of hard cases is expected to bring more errors; p₁ is p₀ plus the rise that the detector is tuned to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from medloop_schemas import DetectorReading, LabelEvidence, Layer
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

FloatArray = NDArray[np.float64]

STREAMS = 512
STREAM_LABELS = 1024
MOST_SUM = 2.0
"""In thresholds: the sum stops there, so that an alarm ends soon after its cause does."""
HIGHEST_RATE = 0.95


class LabelErrorState(BaseModel):
    """The sum, where it last left zero, and the latest outcomes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sum: float = 0.0
    since: int = 0
    errors: tuple[bool, ...] = ()
    """Of the latest labels: whether the reader overruled the model within the classes it has."""
    unknown: tuple[bool, ...] = ()
    """Of the same labels: whether the model lacks the class."""
    unknown_classes: dict[int, str] = Field(default_factory=dict)
    unknown_since: int | None = None
    """The first image whose class the model lacks."""
    latest: int | None = None
    """The latest image whose label has been counted."""


@dataclass(frozen=True)
class LabelError:
    """Bernoulli CUSUM on label errors.

    Attributes:
        expected: (c,), p₀ by predicted class.
        raised: (c,), p₁ by predicted class.
        overall: error rate on the reference.
        threshold: of the sum.
        window: labels that the evidence covers.
    """

    expected: FloatArray
    raised: FloatArray
    overall: float
    threshold: float
    window: int
    name: str = "cusum"

    @classmethod
    def calibrated(
        cls,
        *,
        wrong: NDArray[np.bool_],
        predicted: NDArray[np.int64],
        classes: int,
        rise: float,
        window: int,
        labels_per_alarm: float,
        seed: int,
    ) -> LabelError:
        """Return one that alarms once in so many stationary labels, on average.

        Args:
            wrong: (n,), whether the model was wrong on a reference image.
            predicted: (n,), its answer.
            classes: how many it has.
            rise: of the error rate, that it is tuned to.
            window: labels that the evidence covers.
            labels_per_alarm: mean time between false alarms.
            seed: of the simulation.
        """
        answers = np.bincount(predicted, minlength=classes)
        errors = np.bincount(predicted[wrong], minlength=classes)
        overall = float(wrong.mean())
        # One error at the overall rate is added: a class that had none in the reference is not free of them.
        expected = np.minimum((errors + 1) / (answers + 1 / max(overall, 0.02)), HIGHEST_RATE - rise / 2)
        raised = np.minimum(expected + rise, HIGHEST_RATE)
        mix = (answers + 1) / (answers + 1).sum()
        highest = _simulate(expected, raised, mix, np.random.default_rng(seed))
        threshold = float(np.quantile(highest, np.exp(-STREAM_LABELS / labels_per_alarm)))
        return cls(expected, raised, overall, threshold, window)

    def update(
        self, state: LabelErrorState, predicted: int, label: int, name: str, sequence: int
    ) -> LabelErrorState:
        """Return the state after one label.

        Args:
            state: before it.
            predicted: the model's class.
            label: the reader's class index.
            name: the reader's class.
            sequence: the image's.
        """
        is_unknown = label >= len(self.expected)
        is_error = not is_unknown and label != predicted
        total, since = state.sum, state.since
        if not is_unknown:
            since = sequence if total == 0 else since
            gain = _gains(self.expected[predicted], self.raised[predicted], np.array(is_error))
            total = float(np.clip(total + gain, 0, MOST_SUM * self.threshold))
        return LabelErrorState(
            sum=total,
            since=since,
            errors=(*state.errors, is_error)[-self.window :],
            unknown=(*state.unknown, is_unknown)[-self.window :],
            unknown_classes=state.unknown_classes | ({label: name} if is_unknown else {}),
            unknown_since=sequence if is_unknown and state.unknown_since is None else state.unknown_since,
            latest=sequence if state.latest is None else max(sequence, state.latest),
        )

    def readings(self, state: LabelErrorState) -> Sequence[DetectorReading]:
        """Return where the sum stands, and how many of the latest labels name a class the model lacks."""
        too_many_errors = state.sum > self.threshold
        unknown = sum(state.unknown)
        return (
            DetectorReading(
                detector=self.name,
                layer=Layer.LABEL,
                statistic="error",
                value=state.sum,
                threshold=self.threshold,
                alarmed=too_many_errors,
                since_sequence=state.since if too_many_errors else None,
            ),
            DetectorReading(
                detector="labels",
                layer=Layer.LABEL,
                statistic="unknown_class",
                value=unknown,
                threshold=0,
                alarmed=unknown > 0,
                since_sequence=state.unknown_since if unknown else None,
            ),
        )

    def evidence(self, state: LabelErrorState) -> LabelEvidence:
        """Return what the latest labels say."""
        return LabelEvidence(
            confirmed=len(state.errors),
            errors=sum(state.errors),
            expected_error=self.overall,
            unknown=sum(state.unknown),
            unknown_classes=state.unknown_classes,
            latest_sequence=state.latest,
        )


def _gains(expected: FloatArray, raised: FloatArray, errors: NDArray[np.bool_]) -> FloatArray:
    gains: FloatArray = np.where(errors, np.log(raised / expected), np.log((1 - raised) / (1 - expected)))
    return gains


def _simulate(
    expected: FloatArray, raised: FloatArray, mix: FloatArray, random: np.random.Generator
) -> FloatArray:
    """Return the highest sum in each of many streams that err as the reference does, (STREAMS,)."""
    predicted = random.choice(len(expected), (STREAM_LABELS, STREAMS), p=mix)
    errors = random.random((STREAM_LABELS, STREAMS)) < expected[predicted]
    gains = _gains(expected[predicted], raised[predicted], errors)
    total, highest = np.zeros(STREAMS), np.zeros(STREAMS)
    for gain in gains:
        total = np.maximum(total + gain, 0)
        highest = np.maximum(highest, total)
    return highest
