"""Why an adaptation is made as it is: a code that programs may rely on, and a sentence for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Reason(NamedTuple):
    """One reason. A code keeps its meaning for ever, its sentence may be put better; new codes may come."""

    code: str
    sentence: str


def told(reasons: Sequence[Reason]) -> dict[str, tuple[str, ...]]:
    """Reasons as candidates, their files and logs name them: `why` for people, `why_codes` for programs."""
    return {
        "why": tuple(reason.sentence for reason in reasons),
        "why_codes": tuple(reason.code for reason in reasons),
    }
