"""How a process does: whether it is fit to work and, where not or not fully, why: a sentence a cause."""

from __future__ import annotations


class Health:
    """What is to be said of a service, by cause; each cause holds until it is cleared or said otherwise.

    A service gets it with its `Context` and says what it alone can know: that it goes on with less than it
    should (`degrade`), or what a person may wonder about (`note`). Threads may call it beside each other.
    """

    def __init__(self) -> None:
        self._blocking: dict[str, str] = {"start": "the service is starting"}
        self._degrading: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self.failure: str | None = None

    def block(self, cause: str, reason: str) -> None:
        """Not ready, until `clear` of the same cause."""
        self._blocking[cause] = reason

    def degrade(self, cause: str, reason: str) -> None:
        """Ready, but not as it should be: somebody must look, though a restart would not help."""
        self._degrading[cause] = reason

    def note(self, cause: str, sentence: str) -> None:
        """Nothing is wrong, and a person may want to know."""
        self._notes[cause] = sentence

    def clear(self, cause: str) -> None:
        """This cause holds no more."""
        for causes in (self._blocking, self._degrading, self._notes):
            causes.pop(cause, None)

    def fail(self, reason: str) -> None:
        """The process can't go on and is about to end."""
        self.failure = reason

    @property
    def live(self) -> bool:
        """Whether restarting the process would not help."""
        return self.failure is None

    @property
    def ready(self) -> bool:
        """Whether events are being processed."""
        return self.live and not self._blocking

    @property
    def reasons(self) -> dict[str, str]:
        """Why not ready, by cause; empty when ready."""
        failed = {} if self.failure is None else {"failure": self.failure}
        return {**self._blocking, **failed}

    @property
    def degraded(self) -> dict[str, str]:
        """What is less than it should be, by cause."""
        return dict(self._degrading)

    @property
    def notes(self) -> dict[str, str]:
        """What may be worth knowing, by cause."""
        return dict(self._notes)
