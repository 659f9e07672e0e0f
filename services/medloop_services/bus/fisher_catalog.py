"""Which Fisher information is the newest of a model: what its topic says, folded in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from medloop_schemas import FisherMeasured


@dataclass(slots=True)
class FisherCatalog:
    """Folds `FisherMeasured`; a repeat changes nothing. Nothing is fetched or checked here."""

    _measured: dict[str, dict[str, FisherMeasured]] = field(default_factory=dict)
    """Base version → event id → measurement."""

    def apply(self, measured: FisherMeasured) -> None:
        """Take note of one measurement, unless it is known."""
        known = self._measured.get(measured.base_version, {})
        if measured.event_id not in known:
            self._measured[measured.base_version] = known | {measured.event_id: measured}

    def measured(self, base_version: str, until: datetime) -> tuple[FisherMeasured, ...]:
        """Return a version's measurements up to a time, the newest first.

        Without a bound a replay would find what had not been measured yet; measurements of one time are
        ordered by their digests, so that every replica finds the same first.
        """
        found = [each for each in self._measured.get(base_version, {}).values() if each.time <= until]
        return tuple(sorted(found, key=lambda each: (each.time, each.fisher.sha256), reverse=True))
