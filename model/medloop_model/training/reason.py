"""Why an adaptation is made as it is: a code that programs may rely on, and a sentence for people."""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """One reason. A code keeps its meaning for ever, its sentence may be put better; new codes may come."""

    code: str
    sentence: str
