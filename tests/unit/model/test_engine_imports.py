from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is not installed on a device")

sys.meta_path.insert(0, NoTorch())
import numpy as np
from medloop_model.engine import Engine
import medloop_kernels
assert "torch" not in sys.modules
print(medloop_kernels.select().variant)
"""


def test_the_engine_imports_and_runs_kernels_where_torch_is_not_installed():
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip()
