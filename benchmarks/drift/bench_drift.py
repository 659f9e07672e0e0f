"""How soon drift is noticed, how rarely an alarm is false, what watching costs, what is diagnosed.

    python benchmarks/drift/bench_drift.py             a table
    python benchmarks/drift/bench_drift.py --json      the table on standard error, one JSON line a figure

Every held-out image is measured once, clean and under each corruption, by the model as it is served and by
feature_stats; streams are drawn from those measurements, and every detector sees the same ones. Held out are
the 30 % of the training images that only stream: no training and no monitoring reference has seen them.
"""

from __future__ import annotations

import one_thread  # noqa: F401  # isort: skip  (above whatever imports numpy)

import argparse
import json
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from goals import judged
from medloop_schemas import MedloopError
from medloop_services.cli.options import tell
from medloop_services.replay.corruption import CORRUPTIONS
from medloop_services.replay.dataset import load_dataset
from medloop_services.replay.errors import DatasetError
from monitoring import PEERS, Monitoring, Size, scenario_of
from plots import draw
from results import Results
from site_change import measure_site_change
from table import lines

STREAMS, IMAGES, SCENARIOS, SHUFFLES = 30, 4_000, 200, 20


def main() -> None:
    arguments = parsed()
    unknown = [name for name in arguments.corruptions if name not in CORRUPTIONS]
    if unknown:
        raise DatasetError(f"there is no corruption {unknown[0]!r}; choose of {', '.join(CORRUPTIONS)}")
    # The services' decisions are no figures, and standard output is for those.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    size = Size(
        streams=arguments.streams,
        scenarios=arguments.scenarios,
        images=arguments.images,
        pool=arguments.pool,
        peers=frozenset(arguments.peers),
        corruptions=tuple(arguments.corruptions),
        seed=arguments.seed,
    )
    results = Results(seed=arguments.seed)
    dataset = load_dataset(arguments.data, announce=tell)
    with TemporaryDirectory() as folder:
        scenario = scenario_of(dataset, arguments.model)
        monitoring = Monitoring.of(dataset, scenario, arguments.model, Path(folder), size)
        monitoring.run(results)
        if arguments.shuffles:
            measure_site_change(results, arguments.shuffles, Path(folder) / "site", size)
    results.goals = judged(results)
    output = sys.stderr if arguments.json else sys.stdout
    print(*lines(results), sep="\n", file=output)
    if arguments.json:
        for line in results.lines():
            print(json.dumps(line))
    if arguments.plots is not None:
        for file in draw(results, arguments.images, arguments.plots):
            tell(f"wrote {file}")


def parsed() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of streams, noise and scenarios (default 0)")
    parser.add_argument("--data", help="npz file or `phantoms`; default: MEDLOOP_DATA's PneumoniaMNIST")
    parser.add_argument(
        "--model", type=Path, help="folder that `medloop pretrain` made; default: as a stream's"
    )
    parser.add_argument("--corruptions", nargs="+", default=list(CORRUPTIONS), help="names (default: all)")
    parser.add_argument(
        "--streams", type=int, default=STREAMS, help=f"of a condition, thrice as many stationary ({STREAMS})"
    )
    parser.add_argument(
        "--scenarios", type=int, default=SCENARIOS, help=f"to diagnose; 0: none ({SCENARIOS})"
    )
    parser.add_argument(
        "--shuffles", type=int, default=SHUFFLES, help=f"of WBC's two laboratories; 0: none ({SHUFFLES})"
    )
    parser.add_argument(
        "--images", type=int, default=IMAGES, help=f"of a stationary stream (default {IMAGES})"
    )
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=list(PEERS), help="what to compare with (all)"
    )
    parser.add_argument("--pool", type=int, help="at most so many held-out images (default: all)")
    parser.add_argument("--plots", type=Path, help="folder for pictures")
    parser.add_argument("--json", action="store_true", help="one JSON line a figure on standard output")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except MedloopError as error:
        sys.exit(f"{error}")
