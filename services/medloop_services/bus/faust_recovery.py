"""Faust's reading back of tables as medloop makes it: what takes too long is said, and no order to stop."""

from __future__ import annotations

from faust.tables import TableManager
from faust.tables.recovery import Recovery, ServiceStopped
from mode.services import WaitArgT
from mode.utils.times import Seconds


class TableNotReadBack(TimeoutError):
    """The broker has not answered in time while a table was read back; to begin anew may mend it."""


class LoudRecovery(Recovery):
    """A recovery that says when the broker has not answered in time.

    To Faust 0.15 that looks like an order to stop: the recovery ends without a word, and the process lives on
    without ever taking an event.
    """

    async def _wait(self, coro: WaitArgT, timeout: Seconds | None = None) -> None:
        try:
            await super()._wait(coro, timeout)
        except ServiceStopped:
            if self.should_stop:
                raise
            raise TableNotReadBack(
                f"the table was not read back: the broker took more than {timeout} s"
            ) from None


class LoudTableManager(TableManager):
    """Faust's tables, with that recovery."""

    @property
    def recovery(self) -> Recovery:
        """What reads the tables back; made when first asked for, as Faust does."""
        if self._recovery is None:
            self._recovery = LoudRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
