"""Chooses every peer's learning rate, and weight if it has one, on validation images: once a kind of drift.

    python benchmarks/learn/tune_peers.py      writes benchmarks/learn/peer_settings.json

A choice is the best mean of the balanced accuracy over all counts and both domains, on images that neither
stream nor test: one rule for all peers. Another laboratory has no labelled image to spare for it: its peers
run as under data drift.
"""

from __future__ import annotations

import single_thread  # noqa: F401  # isort: skip  (above whatever imports numpy)

import argparse
import json
import os
from collections import defaultdict
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import fmean

from adapting import adapt
from drifts import USUAL_HELD_OUT, Drift, every_drift
from jobs import over_processes
from medloop_services.bus.context import load_settings
from medloop_services.replay.dataset import DataSettings
from medloop_services.replay.settings import ScenarioName
from methods import PEERS
from peer_settings import FILE, PeerSettings
from problem import validation_problem

DRIFTS = ("scanner 3", "gaussian-noise 3", "brightness-up 3", "policy", "new class 3")
SEED = 100
"""Of the streams; none that is measured."""

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
HEAD_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Where only the head moves."""

WEIGHTS = {"article": (0.01, 0.1, 1.0), "der++": (0.1, 0.5, 1.0), "avalanche-ewc": (1.0, 100.0, 10_000.0)}
"""λ, α = β, λ."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one a core)")
    parser.add_argument("--methods", nargs="+", choices=PEERS, default=list(PEERS), help="(all)")
    parser.add_argument("--conditions", nargs="+", choices=DRIFTS, default=DRIFTS, help="drifts (all)")
    arguments = parser.parse_args()
    data = load_settings(DataSettings).data
    drifts = [drift for drift in every_drift([USUAL_HELD_OUT]) if drift.name in arguments.conditions]
    calls = [
        (method, drift, settings, data)
        for drift in drifts
        for method in arguments.methods
        for settings in grid(method, drift.scenario)
    ]
    scores: dict[tuple[str, str], dict[PeerSettings, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (method, drift, settings, _), score in over_processes("settings", scored, calls, arguments.workers):
        scores[method, drift.scenario][settings].append(score)
    chosen = json.loads(FILE.read_text()) if FILE.is_file() else {}
    for (method, scenario), found in sorted(scores.items()):
        best = max(sorted(found, key=lambda s: (s.rate, s.weight)), key=lambda s: fmean(found[s]))
        chosen.setdefault(method, {})[scenario] = asdict(best)
        if scenario == ScenarioName.DATA_DRIFT:
            chosen[method][ScenarioName.SITE_CHANGE] = asdict(best)
    FILE.write_text(json.dumps(chosen, indent=1, sort_keys=True) + "\n")


def grid(method: str, scenario: ScenarioName) -> list[PeerSettings]:
    """Return what is tried."""
    only_head = method == "head" or (method == "article" and scenario is ScenarioName.NEW_CLASS)
    weighted = WEIGHTS.get(method, (1.0,))
    if method == "article" and scenario is not ScenarioName.DATA_DRIFT:
        weighted = (1.0,)
    return [PeerSettings(*pair) for pair in product(HEAD_RATES if only_head else RATES, weighted)]


def scored(
    method: str, drift: Drift, settings: PeerSettings, data: Path
) -> tuple[tuple[str, Drift, PeerSettings, Path], float]:
    """Return the call and its mean balanced accuracy over counts and domains."""
    points = adapt(validation_problem(drift, SEED, data), PEERS[method](settings)).points
    score = fmean((point.new + point.old) / 2 for point in points)
    return (method, drift, settings, data), score


if __name__ == "__main__":
    main()
