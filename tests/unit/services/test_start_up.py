"""A service that was killed is back soon: nothing heavy is imported that it does not use."""

from __future__ import annotations

import subprocess
import sys

from medloop_services.stack import SERVICES

PROGRAM = """
import importlib, sys
for service in sys.argv[1:]:
    importlib.import_module(f"medloop_services.{service}.app")
heavy = {"matplotlib", "pandas", "scipy.stats", "sklearn"} & sys.modules.keys()
sys.exit(f"imported at start: {sorted(heavy)}" if heavy else 0)
"""


def test_no_service_imports_what_only_notebooks_need() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, *SERVICES], capture_output=True, text=True, check=False, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
