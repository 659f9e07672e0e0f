"""How soon drift is noticed, how rarely an alarm is false, what watching costs, what is diagnosed.

    python benchmarks/drift/bench_drift.py             a table
    python benchmarks/drift/bench_drift.py --json      the table on standard error, one JSON line a figure

Every held-out image is measured once, clean and under each corruption, by the model as it is served and by
feature_stats; streams are drawn from those measurements, and every detector sees the same ones. Held out are
the 30 % of the training images that only stream: no training and no monitoring reference has seen them.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when numpy is imported: these lines stay above it



