"""MedMNIST's own downloader, kept from ever holding anything up."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PATIENCE_SECONDS = 30.0
"""How long a download may take before the phantoms take over."""

# In a process of its own, which can be ended if a connection never answers: medmnist sets no time limit.
_PROGRAM = """
import sys
try:
    import truststore
    truststore.inject_into_ssl()
except ImportError:
    pass
import medmnist
flag, root = sys.argv[1:]
getattr(medmnist, medmnist.INFO[flag]["python_class"])(split="train", download=True, root=root)
"""


def download(flag: str, folder: Path, patience_seconds: float = PATIENCE_SECONDS) -> Path | None:
    """Return MedMNIST's file of a data set, downloaded unless it is in the folder; None if out of reach.

    Args:
        flag: MedMNIST's name of the data set, such as `pneumoniamnist`.
        folder: where the file is kept.
        patience_seconds: how long to try.
    """
    kept = folder / f"{flag}.npz"
    if kept.is_file():
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        try:
            subprocess.run(
                [sys.executable, "-c", _PROGRAM, flag, unfinished],
                check=True,
                capture_output=True,
                timeout=patience_seconds,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
        os.replace(Path(unfinished) / kept.name, kept)
    return kept
