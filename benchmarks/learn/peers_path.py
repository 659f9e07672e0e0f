"""Lets Avalanche be imported from the folder that `make bench-peers` installs it in, behind all else."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

FOLDER = Path(__file__).with_name(".peers")

if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))
# Of libraries that Avalanche imports and nothing here uses.
warnings.filterwarnings("ignore", message=".*(Field|QP solver|deprecated)")
