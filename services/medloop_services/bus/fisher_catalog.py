"""Which Fisher information is the newest of a model: what its topic says, folded in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from medloop_schemas import FisherMeasured

BASES_KEPT = 256
"""Versions whose measurements are kept: ten years of a release a fortnight."""


@dataclass(slots=True)
class FisherCatalog:
    """Folds `FisherMeasured`; a repeat changes nothing. Nothing is fetched or checked here.

    Of more than BASES_KEPT versions the one measured longest ago is forgotten, and before any that has been
    released one that has not.

    Attributes:
        released: whether a version is known to have been released.
    """

    released: Callable[[str], bool] = lambda _version: False
    _measured: dict[str, dict[str, FisherMeasured]] = field(default_factory=dict)
    """Base version → event id → measurement."""

    def apply(self, measured: FisherMeasured) -> None:
        """Take note of one measurement, unless it is known."""
        known = self._measured.get(measured.base_version, {})
        if measured.event_id not in known:
            self._measured[measured.base_version] = known | {measured.event_id: measured}
            if len(self._measured) > BASES_KEPT:
                del self._measured[min(self._measured, key=self._worth)]

    def measured(self, base_version: str, until: datetime) -> tuple[FisherMeasured, ...]:
        """Return a version's measurements up to a time, the newest first.

        Without a bound a replay would find what had not been measured yet; measurements of one time are
        ordered by their digests, so that every replica finds the same first.
        """
        found = [each for each in self._measured.get(base_version, {}).values() if each.time <= until]
        return tuple(sorted(found, key=lambda each: (each.time, each.fisher.sha256), reverse=True))

    def _worth(self, base_version: str) -> tuple[bool, datetime, str]:
        newest = max(each.time for each in self._measured[base_version].values())
        return self.released(base_version), newest, base_version
