"""A scenario: a deterministic stream of images and late labels that drifts, and what to judge a loop by."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from medloop_schemas import ImageAcquired, LabelConfirmed, pseudonym
from medloop_schemas.image import MAX_INLINE_BYTES
from numpy.typing import NDArray

from medloop_services.bus.context import load_settings
from medloop_services.bus.frames import frame_of
from medloop_services.replay.dataset import Dataset
from medloop_services.replay.domains import Domains, Shares, divide_domains
from medloop_services.replay.errors import DatasetError
from medloop_services.replay.settings import ScenarioName, ScenarioSettings
from medloop_services.replay.split import Index, Split, join

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Event time of a stream's first image."""

STREAM_SEED = 0
"""Noise on the streamed images; the test's and the oracle's are others."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream that drifts.

    Attributes:
        scenario: what changes.
        dataset: the images' source.
        settings: what the stream was made with.
        domains: both sides of the drift.
        shown: every image in the order shown, under the label that its reader gives it.
        labelled: (N,) bool, whether its reader ever does.
    """

    scenario: ScenarioName
    dataset: Dataset
    settings: ScenarioSettings
    domains: Domains
    shown: Split
    labelled: NDArray[np.bool_]

    @property
    def drift_at(self) -> int:
        """Index of the first image after the drift, in the whole stream."""
        return self.settings.images_before

    @property
    def devices(self) -> tuple[str, ...]:
        """Device ids; image i is taken by device i modulo their number."""
        return tuple(f"{self.settings.site}/scanner-{number + 1}" for number in range(self.settings.devices))

    @property
    def onset(self) -> dict[str, int]:
        """Device → sequence of its first image after the drift."""
        count = self.settings.devices
        return {
            device: (self.drift_at - place + count - 1) // count for place, device in enumerate(self.devices)
        }

    @property
    def classes_before(self) -> tuple[str, ...]:
        """Names of the classes known before the drift."""
        return self.domains.class_names[: self.domains.known]

    @property
    def classes_after(self) -> tuple[str, ...]:
        """Names of all classes."""
        return self.domains.class_names

    @property
    def training_part(self) -> Split:
        """All that pretraining may use: no streamed image, no held-out class, no other site."""
        return self.domains.training

    @property
    def validation(self) -> Split:
        """For the reference and thresholds, as before the drift."""
        return self.domains.validation

    @property
    def before_test(self) -> Split:
        """Test images as before the drift."""
        return self.domains.test

    @property
    def new_test(self) -> Split:
        """Test images as after the drift."""
        return self.domains.new_test

    @property
    def old_test(self) -> Split:
        """What of `before_test` still holds after the drift: images whose label the new policy keeps."""
        if self.scenario is not ScenarioName.CONCEPT_DRIFT:
            return self.before_test
        return self.before_test.select(self.new_test.labels == self.before_test.labels)

    @property
    def changed(self) -> NDArray[np.bool_]:
        """(N,) bool over `new_test`: the images that the drift made different."""
        changed = np.ones(len(self.new_test), np.bool_)
        if self.scenario is ScenarioName.CONCEPT_DRIFT:
            changed = self.new_test.labels != self.before_test.labels
        elif self.scenario is ScenarioName.NEW_CLASS:
            changed = self.new_test.labels >= self.domains.known
        return changed

    def events(self) -> Iterator[ImageAcquired | LabelConfirmed]:
        """Return images in order, each label `label_delay` images of its device after its image.

        The labels still outstanding after the last image follow it. The same stream gives the same events.
        """
        outstanding: list[deque[int]] = [deque() for _ in self.devices]
        label_counts = [0] * len(self.devices)
        moment = 0
        for index in range(len(self.shown)):
            place = index % len(self.devices)
            moment = 2 * index
            yield self._image(index, moment)
            outstanding[place].append(index)
            while len(outstanding[place]) > self.settings.label_delay:
                moment += 1
                yield from self._label(outstanding[place].popleft(), moment, label_counts)
        for waiting in outstanding:
            for index in waiting:
                moment += 2
                yield from self._label(index, moment, label_counts)

    def _image(self, index: int, moment: int) -> ImageAcquired:
        place = index % len(self.devices)
        return ImageAcquired(
            time=self._time(moment),
            image_id=self._image_id(index),
            device_id=self.devices[place],
            site_id=self.settings.site,
            study_id=self._pseudonym(str(self.shown.studies[index])),
            sequence=index // len(self.devices),
            frame=frame_of(self.shown.images[index]),
        )

    def _label(self, index: int, moment: int, label_counts: list[int]) -> Iterator[LabelConfirmed]:
        if not self.labelled[index]:
            return
        place = index % len(self.devices)
        class_index = int(self.shown.labels[index])
        yield LabelConfirmed(
            time=self._time(moment),
            image_id=self._image_id(index),
            device_id=self.devices[place],
            site_id=self.settings.site,
            sequence=label_counts[place],
            class_index=class_index,
            class_name=self.classes_after[class_index],
        )
        label_counts[place] += 1

    def _time(self, half_intervals: int) -> datetime:
        return EPOCH + timedelta(seconds=half_intervals * self.settings.interval_s / 2)

    def _image_id(self, index: int) -> str:
        return self._pseudonym(f"{self.scenario}/{self.settings.seed}/{index}")

    def _pseudonym(self, identifier: str) -> str:
        return pseudonym(f"{self.dataset.digest}/{identifier}", self.settings.secret.encode())


def build_scenario(
    dataset: Dataset, name: ScenarioName | str, settings: ScenarioSettings | None = None
) -> Stream:
    """Return the stream of a scenario.

    Args:
        dataset: the labelled images.
        name: what changes: data-drift, concept-drift, new-class or site-change.
        settings: the environment's unless given.

    Raises:
        DatasetError: the images don't allow this scenario, or are too large to travel.
        ConfigurationError: a MEDLOOP_REPLAY_… variable is wrong.
    """
    settings = settings or load_settings(ScenarioSettings)
    if name not in set(ScenarioName):
        raise DatasetError(f"there is no scenario {name!r}; choose one of {', '.join(ScenarioName)}")
    scenario = ScenarioName(name)
    frame_bytes = dataset.train.images[0].size
    if frame_bytes > MAX_INLINE_BYTES:
        raise DatasetError(
            f"{dataset.name}: an image has {frame_bytes} bytes, replay sends at most {MAX_INLINE_BYTES}; "
            "shrink the images"
        )
    domains = divide_domains(dataset, scenario, settings)
    generator = np.random.default_rng(settings.seed)
    times_shown: Counter[str] = Counter()
    before = _draw(domains.pool_before, settings.images_before, domains.shares_before, times_shown, generator)
    after = _draw(domains.pool_after, settings.images_after, domains.shares_after, times_shown, generator)
    shown = join([before, domains.change(after, STREAM_SEED)]) if len(after) else before
    labelled = generator.random(len(shown)) < settings.label_share
    return Stream(scenario, dataset, settings, domains, shown, labelled)


def _draw(
    pool: Split, count: int, shares: Shares, times_shown: Counter[str], generator: np.random.Generator
) -> Split:
    """Draw images by class; within a class the least shown come first, so that few are shown twice."""
    labels = generator.choice(len(shares), size=count, p=shares)
    drawn: Index = np.empty(count, np.int64)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(pool.labels == label))
        seen = np.array([times_shown[str(pool.studies[member])] for member in members])
        places = np.flatnonzero(labels == label)
        drawn[places] = np.resize(members[np.argsort(seen, kind="stable")], len(places))
    times_shown.update(str(pool.studies[index]) for index in drawn)
    return pool.select(drawn)
