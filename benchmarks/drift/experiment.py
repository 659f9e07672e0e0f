"""Shows every detector the same streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from conditions import CLEAN, Condition
from measured import Measured
from results import FalseAlarms, Noticed
from streams import Kind, Shares
from summary import delays, run_length
from watching import BATCH, Contender, changing, earliest, first_alarm, stationary

CLEAN_IMAGES = 300
CHANGED_IMAGES = 1_500

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Experiment:
    """Streams of one kind of evidence: images, or late labels.

    Attributes:
        pools: images by name.
        contenders: who watches them.
        together: names of contenders that make one detector, which alarms when the first of them does.
        together_as: that detector's name.
        streams: of a condition.
        seed: of the draws.
        late: images that pass until an image's label comes; 0 where images are watched.
        batch: images between two looks.
    """

    pools: Mapping[str, Measured]
    contenders: Sequence[Contender]
    together: frozenset[str]
    together_as: str
    streams: int
    seed: int
    late: int = 0
    batch: int = BATCH

    def first_alarms(self, condition: Condition, kind: Kind, advance: Advance) -> dict[str, list[int | None]]:
        """Return every detector's first alarm on each stream, None where it never alarmed.

        Counted in images of the stream, as late as its evidence is.
        """
        watched = self._watch(
            self.streams,
            lambda random: changing(
                self.pools, condition, kind, clean=CLEAN_IMAGES, after=CHANGED_IMAGES, random=random
            ),
            f"{condition.name}/{kind}",
            advance,
        )
        return {
            detector: [None if alarm is None else alarm + self.late for alarm in alarms]
            for detector, alarms in watched.items()
        }

    def notice(self, condition: Condition, kind: Kind, advance: Advance) -> list[Noticed]:
        """Return every detector's delays under one condition."""
        return [
            Noticed(
                detector,
                kind,
                condition.name,
                condition.group,
                condition.mild,
                delays(alarms, CLEAN_IMAGES, CHANGED_IMAGES),
            )
            for detector, alarms in self.first_alarms(condition, kind, advance).items()
        ]

    def stay_quiet(
        self, shares: Shares, kind: Kind, *, streams: int, images: int, advance: Advance
    ) -> list[FalseAlarms]:
        """Return every detector's false alarms where nothing changes, on streams of so many images."""
        watched = self._watch(
            streams,
            lambda random: stationary(self.pools[CLEAN], shares, kind, images, random),
            f"stationary/{kind}",
            advance,
        )
        return [
            FalseAlarms(detector, kind, run_length(alarms, images), tuple(alarms))
            for detector, alarms in watched.items()
        ]

    def _watch(
        self,
        streams: int,
        draw: Callable[[np.random.Generator], Measured],
        name: str,
        advance: Advance,
    ) -> dict[str, list[int | None]]:
        """Return the first alarm of every detector on each stream that it is shown."""
        alarms: dict[str, list[int | None]] = {self.together_as: []} if self.together else {}
        alarms |= {contender.name: [] for contender in self.contenders}
        for number in range(streams):
            # Seeded by name: a condition's streams do not depend on which others are asked for.
            stream = draw(np.random.default_rng([self.seed, number, *name.encode()]))
            for contender in self.contenders:
                if number < contender.streams(streams):
                    alarms[contender.name].append(first_alarm(contender.watcher, stream, self.batch))
            if self.together:
                alarms[self.together_as].append(earliest([alarms[part][-1] for part in self.together]))
            advance(1)
        return alarms
