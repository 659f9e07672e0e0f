"""Flower's aggregates of updates in a file; runs in an environment of its own (`make bench-peers`).

flower_peer.py UPDATES.npz RESULT.npz     UPDATES: "updates" (K, P) float32, "samples" (K,), "share"
"""

from __future__ import annotations

import sys
import time

import numpy as np
from flwr.server.strategy.aggregate import aggregate, aggregate_trimmed_avg  # type: ignore[import-not-found]

given = np.load(sys.argv[1])
results = [([update], int(count)) for update, count in zip(given["updates"], given["samples"], strict=True)]
started = time.perf_counter()
(mean,) = aggregate(results)
averaged = time.perf_counter()
(trimmed,) = aggregate_trimmed_avg(results, float(given["share"]))
done = time.perf_counter()
np.savez(sys.argv[2], mean=mean, trimmed=trimmed, seconds=[averaged - started, done - averaged])
