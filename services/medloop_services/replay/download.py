"""The files that MedMNIST publishes, fetched by the addresses and digests it ships, never for long."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PATIENCE_SECONDS = 60.0
"""How long a download may take before the phantoms take over."""

# In a process of its own: a name look-up that never answers can't be interrupted, a process can. MedMNIST's
# table of addresses is read from its file, because importing the package imports torch.
_PROGRAM = """
import hashlib, importlib.util, pathlib, runpy, sys, urllib.request
try:
    import truststore
    truststore.inject_into_ssl()
except ImportError:
    pass
flag, target = sys.argv[1:]
package = importlib.util.find_spec("medmnist")
if package is None:
    sys.exit("medmnist is not installed")
entry = runpy.run_path(str(pathlib.Path(package.origin).with_name("info.py")))["INFO"][flag]
with urllib.request.urlopen(entry["url"], timeout=5) as response:
    content = response.read()
if hashlib.md5(content).hexdigest() != entry["MD5"]:
    sys.exit("the file is not the one MedMNIST describes")
pathlib.Path(target).write_bytes(content)
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
        target = Path(unfinished) / kept.name
        try:
            subprocess.run(
                [sys.executable, "-c", _PROGRAM, flag, str(target)],
                check=True,
                capture_output=True,
                timeout=patience_seconds,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
        os.replace(target, kept)
    return kept
