"""Whether a process is fit to work and, where it is not, why: one sentence a cause."""

from __future__ import annotations


class Health:
    """Causes that keep a service from being ready, by what raised them; alive until it has failed."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {"start": "the service is starting"}
        self.failure: str | None = None

    def block(self, cause: str, reason: str) -> None:
        """Not ready, until `clear` of the same cause."""
        self._causes[cause] = reason

    def clear(self, cause: str) -> None:
        """This cause holds no more."""
        self._causes.pop(cause, None)

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
        return self.live and not self._causes

    @property
    def reasons(self) -> dict[str, str]:
        """Why not ready, by cause; empty when ready."""
        failed = {} if self.failure is None else {"failure": self.failure}
        return {**self._causes, **failed}
