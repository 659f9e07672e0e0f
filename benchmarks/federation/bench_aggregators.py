"""Weighted and trimmed mean beside Flower's, on updates of as many numbers as the `ward` network has.

Prints the seconds of both and how far the results are apart. `make bench-peers` installs Flower.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
from medloop_model.federation.aggregators import trimmed_mean, weighted_mean

HERE = Path(__file__).parent
PYTHON = HERE / ".peers" / "bin" / "python"
NUMBERS = 250_000
SHARE = 0.2
LARGEST_DIFFERENCE = 1e-6


def flower(updates_KP: np.ndarray, samples_K: np.ndarray) -> dict[str, np.ndarray]:
    """What Flower makes of the same updates: `mean` and `trimmed` (P,), and `seconds` (2,)."""
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "given.npz", Path(folder) / "result.npz"
        np.savez(given, updates=updates_KP, samples=samples_K, share=SHARE)
        subprocess.run([PYTHON, HERE / "flower_peer.py", given, result], check=True)
        return dict(np.load(result))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    options = parser.parse_args()
    if not PYTHON.is_file():
        print("Flower isn't installed: run `make bench-peers`", file=sys.stderr)
        return 2
    draw = np.random.default_rng(options.seed)
    updates_KP = draw.normal(0, 1e-3, (options.sites, NUMBERS)).astype(np.float32)
    samples_K = draw.integers(16, 512, options.sites)
    tensors = [{"all": update_P} for update_P in updates_KP]
    theirs = flower(updates_KP, samples_K)
    started = time.perf_counter()
    mean_P = weighted_mean(tensors, list(map(float, samples_K)))["all"]
    averaged = time.perf_counter()
    trimmed_P = trimmed_mean(tensors, SHARE)["all"]
    done = time.perf_counter()
    equal = True
    for name, ours_P, seconds, peer_seconds in (
        ("mean", mean_P, averaged - started, theirs["seconds"][0]),
        ("trimmed", trimmed_P, done - averaged, theirs["seconds"][1]),
    ):
        apart = float(np.abs(ours_P - theirs[name]).max())
        equal = equal and apart <= LARGEST_DIFFERENCE
        figure = {
            "name": f"federation/{name}",
            "value": seconds,
            "unit": "s",
            "peer": "flwr",
            "peer_value": float(peer_seconds),
            "ratio": float(peer_seconds) / seconds,
            "limit": None,
            "goal": LARGEST_DIFFERENCE,
            "met": apart <= LARGEST_DIFFERENCE,
            "seed": options.seed,
            "n": NUMBERS,
            "largest_difference": apart,
        }
        if options.json:
            print(orjson.dumps(figure).decode())
        else:
            print(
                f"{name:8} {1e3 * seconds:6.1f} ms, Flower {1e3 * float(peer_seconds):6.1f} ms; "
                f"at most {apart:.1e} apart"
            )
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
