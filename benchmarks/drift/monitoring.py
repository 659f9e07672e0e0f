"""Measures a model's monitoring: pools, detectors, false alarms, delays, cost and diagnoses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from conditions import (
    CLEAN,
    Condition,
    corrupted_conditions,
    fault_conditions,
    image_conditions,
    image_pools,
    label_conditions,
    label_policies,
    prior_conditions,
)
from cost import costs
from diagnosing import Site, confusion
from experiment import Experiment
from foreign_peers import LIBRARIES, foreign_peers
from measured import Measured
from medloop_model.checkpoint import load_package
from medloop_schemas import Diagnosis
from medloop_services.cli.options import tell
from medloop_services.cli.progress import training_bar
from medloop_services.model_choice import choose_model
from medloop_services.pretraining import MODEL_FILE
from medloop_services.replay.dataset import Dataset
from medloop_services.replay.domains import Domains
from medloop_services.replay.errors import DatasetError
from medloop_services.replay.policy import Policy
from medloop_services.replay.scenario import build_scenario
from medloop_services.replay.settings import ScenarioName
from medloop_services.replay.split import Split
from ours import LABELS, PANEL, LabelPanel, image_detectors
from probe import Probe
from progress import bar
from results import Results
from river_peers import image_peers, kswin_peer, label_peers
from streams import Kind
from watching import Contender, stationary

RIVER, KSWIN = "river", "river-kswin"
PEERS = (RIVER, KSWIN, *LIBRARIES)

STATIONARY_TIMES = 3
"""Stationary streams for each of a condition's."""

LABEL_DELAY = 32
LABEL_BATCH = 8
"""Images until a label comes, and labels between two signals."""

COST_IMAGES = 1_600

DIAGNOSED_SEVERITIES = (3, 4, 5)
DIAGNOSED_RELABELLED = (0.3, 0.4, 0.5)
"""Share of the positives that readers call negative at those severities."""


@dataclass(frozen=True)
class Size:
    """How much is measured, and of what.

    Attributes:
        streams: of a condition.
        images: of a stationary stream.
        scenarios: to diagnose.
        pool: held-out images at most; all if None.
        corruptions: names.
        peers: of PEERS, which to compare with.
        seed: of everything that is drawn.
    """

    streams: int
    images: int
    scenarios: int
    pool: int | None
    corruptions: tuple[str, ...]
    peers: frozenset[str]
    seed: int


def scenario_of(dataset: Dataset, model: Path | None) -> ScenarioName:
    """Return what else than corruptions can change: a class may arrive where two are left without it.

    Args:
        dataset: the images.
        model: a named one; if it knows every class, none can arrive.
    """
    knows_all = model is not None and _classes_of(model) == dataset.class_names
    return ScenarioName.DATA_DRIFT if len(dataset.class_names) < 3 or knows_all else ScenarioName.NEW_CLASS


@dataclass(frozen=True)
class Monitoring:
    """A model in service, and its held-out images, measured.

    Attributes:
        scenario, domains: what changes beside corruptions, and both sides of it.
        probe: the model and its detectors.
        splits, pools: images by name, and what was measured of them.
        size: how much is measured.
    """

    scenario: ScenarioName
    domains: Domains
    probe: Probe
    splits: dict[str, Split]
    pools: dict[str, Measured]
    size: Size

    @classmethod
    def of(
        cls, dataset: Dataset, scenario: ScenarioName, model: Path | None, folder: Path, size: Size
    ) -> Monitoring:
        """Choose the model, calibrate its detectors and measure every pool.

        Args:
            dataset: the images.
            scenario: what else than corruptions may change.
            model: a package or its folder; unless given, the one that a stream of the data starts with.
            folder: for the artifact store.
            size: how much.

        Raises:
            DatasetError: the model has other classes than the images before a change.
        """
        stream = build_scenario(dataset, scenario)
        domains = stream.domains
        with training_bar() as progress:  # shown only where a model has to be trained
            choice = choose_model(stream, model, tell, progress)
        if _classes_of(choice.model) != stream.classes_before:
            raise DatasetError(
                f"{choice.model} tells {', '.join(_classes_of(choice.model))} apart, but the images before a "
                f"change show {', '.join(stream.classes_before)}; name the model that was trained on them"
            )
        probe = Probe(choice.model, folder)
        splits = dict(image_pools(scenario, domains, size.corruptions, size.pool, size.seed))
        with bar("measuring images", sum(map(len, splits.values()))) as advance:
            pools = {name: probe.measure(split, advance) for name, split in splits.items()}
        _tell_pool(dataset, pools[CLEAN], domains)
        return cls(scenario, domains, probe, splits, pools, size)

    def run(self, results: Results) -> None:
        """Measure everything."""
        self.watch_images(results)
        self.watch_labels(results)
        self.time_detectors(results)
        if self.size.scenarios:
            self.diagnose(results)

    @cached_property
    def contenders(self) -> list[Contender]:
        """The detectors of images, ours first."""
        reference = self.probe.reference
        ours = [Contender(name, watcher) for name, watcher in image_detectors(self.probe.panel).items()]
        river = image_peers(reference) if RIVER in self.size.peers else []
        kswin = [kswin_peer(reference, self.size.seed)] if KSWIN in self.size.peers else []
        return [*ours, *river, *kswin, *foreign_peers(reference, self.size.peers)]

    def images(self) -> Experiment:
        """Return the experiment on detectors of images."""
        return Experiment(
            pools=self.pools,
            contenders=self.contenders,
            together=frozenset(image_detectors(self.probe.panel)),
            together_as=PANEL,
            streams=self.size.streams,
            seed=self.size.seed,
        )

    def watch_images(self, results: Results) -> None:
        """Measure false alarms and delays of the detectors of images."""
        conditions = image_conditions(self.scenario, self.domains, self.size.corruptions)
        self._watch(results, self.images(), conditions, "images")

    def watch_labels(self, results: Results) -> None:
        """Measure false alarms and delays of the detectors of errors; nothing but the readers changes."""
        policies = label_policies(self.domains)
        own = LabelPanel(self.probe.panel.label_error, self.domains.class_names)
        experiment = Experiment(
            pools=self.pools | self._relabelled(policies),
            contenders=[Contender(LABELS, own), *(label_peers() if RIVER in self.size.peers else [])],
            together=frozenset(),
            together_as="",
            streams=self.size.streams,
            seed=self.size.seed,
            late=LABEL_DELAY,
            batch=LABEL_BATCH,
        )
        self._watch(results, experiment, label_conditions(self.domains, list(policies)), "labels")

    def time_detectors(self, results: Results) -> None:
        """Measure what detectors take of time and memory, on a stream in which nothing changes."""
        random = np.random.default_rng(self.size.seed)
        shares = self.domains.shares_before
        stream = stationary(self.pools[CLEAN], shares, Kind.IID, COST_IMAGES, random)
        results.costs += costs(self.probe.panel, stream, self.contenders)

    def diagnosed(self) -> tuple[dict[str, Sequence[Condition]], dict[str, Measured], Site]:
        """Return what is to be diagnosed: the conditions of each cause, images by name, and the site."""
        policies = label_policies(self.domains, DIAGNOSED_RELABELLED)
        causes: dict[str, Sequence[Condition]] = {
            Diagnosis.DATA_DRIFT.value: corrupted_conditions(
                self.domains, self.size.corruptions, DIAGNOSED_SEVERITIES, False
            ),
            Diagnosis.CONCEPT_DRIFT.value: label_conditions(self.domains, list(policies)),
            Diagnosis.PRIOR_SHIFT.value: prior_conditions(self.domains),
            Diagnosis.SENSOR_FAULT.value: fault_conditions(self.domains),
        }
        if self.scenario is ScenarioName.NEW_CLASS:
            every = image_conditions(self.scenario, self.domains, ())
            causes[Diagnosis.NEW_CLASS.value] = [one for one in every if one.name == self.scenario]
        site = Site.opened(
            self.probe.context, self.probe.release, self.probe.panel.baseline, self.domains.class_names
        )
        return causes, self.pools | self._relabelled(policies), site

    def diagnose(self, results: Results) -> None:
        """Have random scenarios diagnosed."""
        causes, pools, site = self.diagnosed()
        with bar("diagnosing", self.size.scenarios) as advance:
            results.confusion, results.confidently_wrong = confusion(
                site,
                pools,
                causes,
                scenarios=self.size.scenarios,
                seed=self.size.seed,
                advance=advance,
            )

    def _watch(
        self, results: Results, experiment: Experiment, conditions: Sequence[Condition], what: str
    ) -> None:
        quiet = STATIONARY_TIMES * self.size.streams
        total = len(Kind) * (quiet + len(conditions) * self.size.streams)
        with bar(f"watching {what}", total) as advance:
            for kind in Kind:
                results.false_alarms += experiment.stay_quiet(
                    self.domains.shares_before, kind, streams=quiet, images=self.size.images, advance=advance
                )
                for condition in conditions:
                    results.noticed += experiment.notice(condition, kind, advance)

    def _relabelled(self, policies: Mapping[str, Policy]) -> dict[str, Measured]:
        """Return the clean images under other readers' labels, by the policy's name."""
        clean, split = self.pools[CLEAN], self.splits[CLEAN]
        return {name: replace(clean, read=policy(split)) for name, policy in policies.items()}


def _classes_of(model: Path) -> tuple[str, ...]:
    file = model / MODEL_FILE if model.is_dir() else model
    return load_package(file, parts=("reference",)).architecture.classes


def _tell_pool(dataset: Dataset, clean: Measured, domains: Domains) -> None:
    counts = np.bincount(clean.labels, minlength=domains.known)
    of_class = ", ".join(
        f"{count} {name} shown {share:.0%} of the time"
        for count, name, share in zip(counts, domains.class_names, domains.shares_before, strict=False)
    )
    tell(f"pool: {len(clean)} held-out images of {dataset.name} ({of_class}); streams repeat them")
