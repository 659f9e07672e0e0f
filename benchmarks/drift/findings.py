"""How often each finding is made under each cause: the table of event_aggregation/probability.py.

    python benchmarks/drift/findings.py --seed 1000

Random scenarios as `bench_drift.py` diagnoses them, of other seeds; findings are counted at each signal that
comes while something lasts, from the change on, and every scenario counts as much as another.
"""

from __future__ import annotations

import one_thread  # noqa: F401  # isort: skip  (above whatever imports numpy)

import argparse
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from conditions import Condition
from diagnosing import AFTER, STARTS, Site
from measured import Measured
from medloop_schemas import DriftSignalled, Event
from medloop_services.bus.context import load_settings
from medloop_services.event_aggregation.aggregation import step
from medloop_services.event_aggregation.diagnosis import evidence_of
from medloop_services.event_aggregation.probability import Errors, Inputs, Mix, Names
from medloop_services.event_aggregation.settings import EventAggregationSettings
from medloop_services.event_aggregation.state import AggregationState
from medloop_services.loop import InProcessLoop
from medloop_services.replay.corruption import CORRUPTIONS
from medloop_services.replay.dataset import load_dataset
from monitoring import Monitoring, Size, scenario_of
from streams import Kind
from watching import changing

KINDS: tuple[type[Enum], ...] = (Inputs, Mix, Names, Errors)
SHOWN = 600
"""Images after a change, all devices counted, in which findings are counted: when a cause is to be named."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="as of bench_drift.py")
    parser.add_argument("--seed", type=int, default=1000, help="of the scenarios (default 1000)")
    parser.add_argument("--scenarios", type=int, default=30, help="of each cause (default 30)")
    parser.add_argument("--pool", type=int, help="at most so many held-out images (default: all)")
    parser.add_argument("--corruptions", nargs="+", default=list(CORRUPTIONS), help="names (default: all)")
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data)
    size = Size(
        streams=1,
        images=64,
        scenarios=1,
        pool=arguments.pool,
        corruptions=tuple(arguments.corruptions),
        peers=frozenset(),
        seed=arguments.seed,
    )
    with TemporaryDirectory() as folder:
        monitoring = Monitoring.of(dataset, scenario_of(dataset, None), None, Path(folder), size)
        causes, pools, site = monitoring.diagnosed()
        for cause, conditions in causes.items():
            shares = counted(site, pools, conditions, arguments.scenarios, arguments.seed)
            print(cause, {f"{type(f).__name__}.{f.name}": round(share, 4) for f, share in shares.items()})


def counted(
    site: Site, pools: dict[str, Measured], conditions: Sequence[Condition], scenarios: int, seed: int
) -> dict[Enum, float]:
    """Return finding → share among the findings of its kind that are made, the mean over scenarios."""
    weights: Counter[Enum] = Counter()
    for number in range(scenarios):
        random = np.random.default_rng((seed, number))
        condition = conditions[number % len(conditions)]
        start = int(random.integers(*STARTS))
        stream = changing(pools, condition, Kind.IID, clean=start, after=AFTER, random=random)
        made = Counter(found_in(site, stream, start))
        for kind in KINDS:
            total = sum(made[finding] for finding in kind)
            weights.update({finding: made[finding] / total for finding in kind if total})
    return {
        finding: weights[finding] / total
        for kind in KINDS
        if (total := sum(weights[finding] for finding in kind))
        for finding in kind
    }


def found_in(site: Site, stream: Measured, start: int) -> list[Enum]:
    """Return every finding that is made of a stream soon after its change, signal by signal."""
    settings = load_settings(EventAggregationSettings)
    state, findings, taken = AggregationState(site_id=site.release.site_id), list[Enum](), 0

    def observe(event: Event) -> None:
        nonlocal state
        if not isinstance(event, DriftSignalled):
            return
        state, _ = step(state, event, settings)
        devices = {name: one for name, one in state.devices.items() if one.faulty_at is None}
        evidence = evidence_of(devices, settings)
        lasts = state.incident is not None or evidence.inputs is not Inputs.QUIET
        if taken > start and lasts:
            findings.extend(finding for finding in evidence.findings if isinstance(finding, KINDS))

    loop = InProcessLoop(site.services[:1], observe)
    loop.publish([site.release])
    for images, event in site.events(stream):
        taken = images
        if images > start + SHOWN:
            break
        loop.publish([event])
    return findings


if __name__ == "__main__":
    main()
