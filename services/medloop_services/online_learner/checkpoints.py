"""Checkpoints of learners: a restart goes on from the last one and not from the first label.

A cache and no more. What a learner has been taught stands on the state's topic; a checkpoint that is missing,
damaged, or of other examples, plan or software is passed over, and the learner taught from an earlier one or
from the beginning, which gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from medloop_model.errors import CorruptCheckpoint
from medloop_model.training.learner_state import LearnerState, load_state, save_state

KEPT = 2
"""Of a site: the last may be ahead of the state that was stored when the process was killed."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The learners' files in one folder, which is safe to delete at any time.

    Attributes:
        folder: on the local disk.
    """

    folder: Path

    def keep(self, site_id: str, request_id: str, trained: int, state: LearnerState, identity: str) -> None:
        """Write where a learner stands after `trained` new examples; a full disk is no reason to stop."""
        kept = self._files(site_id, request_id)
        path = self._path(site_id, request_id, trained)
        try:
            save_state(state, path, identity)
            for other in path.parent.iterdir():
                if other not in [*kept[: KEPT - 1], path]:
                    other.unlink(missing_ok=True)
        except OSError as error:
            log.warning("a checkpoint of the learner could not be written", path=str(path), reason=str(error))

    def latest(
        self, site_id: str, request_id: str, trained: int, identity_after: Callable[[int], str]
    ) -> tuple[int, LearnerState] | None:
        """Return how much a learner had been taught at its last usable checkpoint, and its state there.

        Args:
            site_id: the site.
            request_id: the adaptation request.
            trained: new examples it may have been taught at most.
            identity_after: of what has been learned after so many.
        """
        for path in self._files(site_id, request_id):
            number = int(path.stem.rsplit("-", 1)[1])
            if number > trained:
                continue
            try:
                state = load_state(path, identity_after(number))
            except CorruptCheckpoint as error:
                log.warning("a checkpoint of the learner is passed over", reason=str(error))
                continue
            if state is not None:
                return number, state
        return None

    def _files(self, site_id: str, request_id: str) -> list[Path]:
        """Of one request, the last one first."""
        first = self._path(site_id, request_id, 0)
        pattern = f"{first.stem.rsplit('-', 1)[0]}-*{first.suffix}"
        return sorted(first.parent.glob(pattern), reverse=True)

    def _path(self, site_id: str, request_id: str, trained: int) -> Path:
        name = f"{_digits(request_id)}-{trained:09d}.safetensors"
        return self.folder / _digits(site_id) / name


def _digits(text: str) -> str:
    """A name for a folder or file, whatever a site calls itself."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
