"""What a benchmark measures and how: calls alternate, medians are compared, above 1 means ours is faster."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when numpy and torch are imported: import this module above them

WARM_UP = 3


@dataclass(frozen=True)
class Figure:
    """One figure beside what it is compared with.

    Args:
        name: what was measured.
        value: in `unit`.
        unit: of `value` and `peer_value`.
        peer: what it is compared with.
        peer_value: its figure in the same run.
        ratio: how many times better than the peer; for a share, the share itself.
        limit: the least that this machine's arithmetic units allow, in `unit`; null where no bound is known.
        goal: the ratio aimed at; null where none is.
        met: whether it was reached.
        seed: of operands, weights and images.
        n: measurements behind the median.
    """

    name: str
    value: float
    unit: str
    peer: str
    peer_value: float
    ratio: float
    limit: float | None
    goal: float | None
    met: bool
    seed: int
    n: int

    def __str__(self) -> str:
        of_limit = "" if self.limit is None else f"  {100 * self.limit / self.value:3.0f} % of the limit"
        missed = "" if self.met else f"  MISSED: the goal is {self.goal}x"
        return (
            f"{self.name:38} {self.value:10.2f} {self.unit:9} {self.peer:24} {self.peer_value:10.2f} "
            f"{self.ratio:6.2f}x{of_limit}{missed}"
        )


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; they alternate, so that a busy machine slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(min(WARM_UP, rounds) + rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= min(WARM_UP, rounds):
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(measured) for name, measured in seconds.items()}


def compare(
    name: str,
    unit: str,
    ours: Callable[[], object],
    peers: dict[str, Callable[[], object]],
    *,
    seed: int,
    rounds: int,
    scale: float,
    goals: dict[str, float],
    limit: float | None = None,
) -> Iterator[Figure]:
    """A figure a peer; `scale` turns seconds into `unit`, and `limit` is in seconds."""
    measured = medians({"": ours, **peers}, rounds)
    value = measured.pop("") * scale
    for peer, seconds in measured.items():
        ratio, goal = seconds * scale / value, goals.get(peer)
        yield Figure(
            name=name,
            value=value,
            unit=unit,
            peer=peer,
            peer_value=seconds * scale,
            ratio=ratio,
            limit=None if limit is None else limit * scale,
            goal=goal,
            met=goal is None or ratio >= goal,
            seed=seed,
            n=rounds,
        )


def run(description: str | None, rounds: int, benches: list[Callable[[int, int], Iterator[Figure]]]) -> None:
    """Parse the command line and print every figure as it comes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    parser.add_argument("--seed", type=int, default=0, help="of operands, weights and images (default 0)")
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"measurements a figure (default {rounds})"
    )
    arguments = parser.parse_args()
    for bench in benches:
        for figure in bench(arguments.seed, arguments.rounds):
            print(json.dumps(asdict(figure)) if arguments.json else figure, flush=True)
