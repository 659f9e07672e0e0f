"""What `make` measures is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_script_that_make_runs_exists() -> None:
    named = set(re.findall(r"benchmarks/\S+\.(?:py|txt)", (ROOT / "Makefile").read_text()))
    assert "benchmarks/learn/measure_optimiser_step.py" in named
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []
