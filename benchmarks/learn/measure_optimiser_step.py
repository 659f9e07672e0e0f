"""What one optimiser step alone costs, strategy by strategy: forward, backward, step, on 16 small images.

    python benchmarks/learn/measure_optimiser_step.py           a table
    python benchmarks/learn/measure_optimiser_step.py --json    one JSON line a figure

One thread. A step of each strategy moves what the strategy moves, on the same images and labels; the steps
alternate. Time is the thread's own, so that what else runs on the machine counts little; the median is given.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "kernels"))  # a figure is the same there

import torch
from figures import Figure
from medloop_model.architecture import ward
from medloop_model.network import BiTMedViT
from medloop_model.training.export import export_package, network_from
from medloop_model.training.freeze import DISTIL_ALL, EXPAND_HEAD, SHALLOW_EWC, freeze
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.streaming import StreamingLearner
from medloop_model.training.workbench import Workbench
from torch.nn.functional import cross_entropy

CLASSES = ("normal", "opacity")
IMAGES = 16
MOST_MS = 25.0
MOST_MIB = 600.0
KIB_A_MIB = 1024
STEPS = {"full": DISTIL_ALL, "shallow": SHALLOW_EWC, "head only": EXPAND_HEAD}
WARM_UP, A_TURN = 2, 8


def figures(seed: int, rounds: int) -> Iterator[Figure]:
    """Each strategy's step beside the goal or the full step, then the memory of all of it."""
    measured = medians({name: step_of(strategy, seed) for name, strategy in STEPS.items()}, rounds)
    full = measured["full"]
    yield compared("step, full", full, "ms", peer="goal", peer_value=MOST_MS, seed=seed, n=rounds * A_TURN)
    for name in ("shallow", "head only"):  # what freezes must cost less than what doesn't
        yield compared(
            f"step, {name}",
            measured[name],
            "ms",
            peer="step, full",
            peer_value=full,
            seed=seed,
            n=rounds * A_TURN,
        )
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_A_MIB
    yield compared("memory, at most", resident, "MiB", peer="goal", peer_value=MOST_MIB, seed=seed, n=1)


def compared(
    name: str, value: float, unit: str, *, peer: str, peer_value: float, seed: int, n: int
) -> Figure:
    """A figure that is met where it is below its peer's; the ratio is how many times."""
    ratio = peer_value / value
    return Figure(name, value, unit, peer, peer_value, ratio, None, 1.0, ratio > 1, seed, n)


def step_of(strategy: str, seed: int) -> Callable[[], object]:
    """One optimiser step on one mini-batch, as a learner takes it; what the weights are costs nothing."""
    package = export_package(BiTMedViT(ward(28, 1, CLASSES), seed), {})
    plan = TrainingPlan(strategy, CLASSES, learning_rate=1e-6)
    network = network_from(package)
    bench = Workbench(network, freeze(network, strategy), plan)
    bench.lay_out(StreamingLearner(package, None, plan).begin())
    draw = torch.Generator().manual_seed(seed)
    pixels_BHWC = torch.rand(IMAGES, 28, 28, 1, generator=draw)
    labels_B = torch.randint(len(CLASSES), (IMAGES,), generator=draw)
    if strategy == EXPAND_HEAD:  # a backbone that stays is run once an image, before the first step
        embeddings_BD = network.embed(pixels_BHWC).detach()
        return lambda: bench.descend(cross_entropy(network.answer(embeddings_BD), labels_B))
    return lambda: bench.descend(cross_entropy(network(pixels_BHWC), labels_B))


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call; turns alternate, so that a busy machine slows all of them."""
    milliseconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for repeat in range(WARM_UP + A_TURN):
                start = time.thread_time()
                call()
                if repeat >= WARM_UP:  # the first of a turn find nothing in the caches
                    milliseconds[name].append(1000 * (time.thread_time() - start))
    return {name: statistics.median(measured) for name, measured in milliseconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    parser.add_argument("--seed", type=int, default=0, help="of weights and images (default 0)")
    parser.add_argument("--rounds", type=int, default=20, help=f"turns of {A_TURN} steps each (default 20)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for figure in figures(arguments.seed, arguments.rounds):
        print(json.dumps(asdict(figure)) if arguments.json else figure, flush=True)


if __name__ == "__main__":
    main()
