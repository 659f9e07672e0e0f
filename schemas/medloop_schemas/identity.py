"""Identifiers: derived from causes, so that a repeat has the same; keyed, so that no patient is guessed."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

from pydantic import StringConstraints

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
"""Letters, digits and `_ . : / -`, at most 128 of them."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Lower-case hexadecimal SHA-256 digest."""


def derive_id(*causes: str | int) -> str:
    """Return 32 hexadecimal digits that depend on the causes and their order, and on nothing else."""
    return hashlib.sha256("\x1f".join(map(str, causes)).encode()).hexdigest()[:32]


def pseudonym(identifier: str, secret: bytes) -> str:
    """Return the keyed hash (HMAC-SHA-256, 32 hexadecimal digits) that stands for a real-world identifier.

    A plain hash of a known study UID could be found by guessing; without the site's secret this one can't.
    """
    return hmac.new(secret, identifier.encode(), hashlib.sha256).hexdigest()[:32]
