"""Random scenarios through the cores of drift_detection and event_aggregation: what is named as their cause.

As `medloop simulate` joins them, without training: the devices of a site take turns, labels come late, and
the first cause that is named is the diagnosis; what is diagnosed without one is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from conditions import Condition
from measured import EPOCH, Measured
from medloop_schemas import DriftDiagnosed, Event, LabelConfirmed, ReleaseChanged, StatsMeasured
from medloop_services.bus.context import Context, load_settings
from medloop_services.bus.processor import Service
from medloop_services.drift_detection.app import build as build_drift_detection
from medloop_services.drift_detection.baseline import Baseline
from medloop_services.event_aggregation.aggregation import processor as aggregation_processor
from medloop_services.loop import InProcessLoop
from medloop_services.replay.settings import ScenarioSettings
from streams import Kind
from watching import BATCH, changing

STARTS = (200, 800)
"""A change begins at a random image between these, all devices counted."""

AFTER = 2_400
NOTHING, EARLY = "nothing", "early"
"""No cause was named before the stream ended; one before anything had changed."""

UNDECIDED = "undecided"
"""No cause was named, though something was noticed."""

CONFIDENT = 0.9
"""A wrong cause that is named with a higher probability is worse than none."""


@dataclass(frozen=True)
class Answer:
    """What was made of a stream: a cause, EARLY, UNDECIDED or NOTHING, and how probable it was said to be."""

    named: str
    probability: float = 0.0


@dataclass(frozen=True)
class Site:
    """A model in service at a site, and what follows it.

    Attributes:
        release: of the model.
        services: drift_detection and event_aggregation.
        baseline: of the model.
        class_names: the readers'.
        settings: how many devices, and how late labels are.
    """

    release: ReleaseChanged
    services: tuple[Service, ...]
    baseline: Baseline
    class_names: tuple[str, ...]
    settings: ScenarioSettings

    @classmethod
    def opened(
        cls, context: Context, release: ReleaseChanged, baseline: Baseline, class_names: tuple[str, ...]
    ) -> Site:
        """Return the site of a release whose model lies in the context's store."""
        aggregation = Service(name="event_aggregation", processors=(aggregation_processor(context),))
        services = (build_drift_detection(context), aggregation)
        return cls(release, services, baseline, class_names, load_settings(ScenarioSettings))

    def diagnose(self, stream: Measured, start: int) -> Answer:
        """Return the first diagnosis of a stream that changes at `start`."""
        said: list[DriftDiagnosed] = []

        def observe(event: Event) -> None:
            if isinstance(event, DriftDiagnosed):
                said.append(event)

        # The loop remembers; the services, and the detectors that they have calibrated, serve many loops.
        loop = InProcessLoop(self.services, observe)
        loop.publish([self.release])
        for images, event in self.events(stream):
            loop.publish([event])
            if said and (named := said[-1].diagnosis) is not None:
                probability = said[-1].probabilities[named]
                return Answer(EARLY if images <= start else str(named), probability)
        return Answer(UNDECIDED if said else NOTHING)

    def events(self, stream: Measured) -> Iterator[tuple[int, Event]]:
        """Return micro-batches and late labels in order, each with the images that all devices have taken."""
        devices = self.settings.devices
        step = devices * BATCH
        for end in range(step, len(stream) + 1, step):
            for place in range(devices):
                taken = range(place, end, devices)
                yield end, self._measured(stream, place, taken)
                yield from ((end, label) for label in self._labels(stream, place, taken))

    def _measured(self, stream: Measured, place: int, taken: range) -> StatsMeasured:
        latest = taken[-BATCH:]
        sequences = list(range(len(taken) - BATCH, len(taken)))
        return StatsMeasured(
            time=EPOCH + timedelta(seconds=latest[-1]),
            device_id=f"device-{place}",
            site_id=self.release.site_id,
            model_version=self.release.version,
            images=tuple(stream.take(np.array(latest)).statistics(self.baseline, sequences)),
        )

    def _labels(self, stream: Measured, place: int, taken: range) -> Iterator[LabelConfirmed]:
        """Return the labels that come with a device's latest micro-batch: of images some time ago."""
        labelled = max(0, len(taken) - self.settings.label_delay)
        for sequence in range(max(0, labelled - BATCH), labelled):
            label = int(stream.read[taken[sequence]])
            yield LabelConfirmed(
                time=EPOCH + timedelta(seconds=taken[-1]),
                image_id=f"image-{sequence}",
                device_id=f"device-{place}",
                site_id=self.release.site_id,
                sequence=sequence,
                class_index=label,
                class_name=self.class_names[label],
            )


def confusion(
    site: Site,
    pools: Mapping[str, Measured],
    causes: Mapping[str, Sequence[Condition]],
    *,
    scenarios: int,
    seed: int,
    advance: Callable[[int], None],
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Return cause → diagnosis → how many of the random scenarios, and cause → how many confidently wrong.

    Args:
        site: the model in service.
        pools: images by name.
        causes: as diagnoses name them, each with the conditions that one is drawn from; they take turns.
        scenarios: how many.
        seed: of condition, start and images.
        advance: told how many more are done.
    """
    found: dict[str, dict[str, int]] = {cause: {} for cause in causes}
    confidently_wrong = dict.fromkeys(causes, 0)
    for number in range(scenarios):
        random = np.random.default_rng((seed, number))
        cause = list(causes)[number % len(causes)]
        condition = causes[cause][int(random.integers(len(causes[cause])))]
        start = int(random.integers(*STARTS))
        stream = changing(pools, condition, Kind.IID, clean=start, after=AFTER, random=random)
        answer = site.diagnose(stream, start)
        found[cause][answer.named] = found[cause].get(answer.named, 0) + 1
        confidently_wrong[cause] += answer.named != cause and answer.probability > CONFIDENT
        advance(1)
    return found, confidently_wrong
