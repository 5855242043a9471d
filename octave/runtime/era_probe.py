"""Finding out which eras a server speaks, from a process that is up, without harm to anybody.

Nobody waits for it: it is no call, and a stop ends it.
"""

from collections.abc import Callable

import anyio

from octave.runtime import probe
from octave.runtime.calls import Calls
from octave.runtime.connection import Connection
from octave.runtime.subject import Subject


class EraProbe:
    """Of one process. `live` gives the connection that takes requests now."""

    def __init__(
        self, subject: Subject, calls: Calls, live: Callable[[], Connection | None]
    ) -> None:
        self._subject = subject
        self._calls = calls
        self._live = live
        self._one, self._scope = anyio.Lock(), anyio.CancelScope()

    async def learn(self) -> None:
        """Find it out, if that is not known and the server can be asked now."""
        async with self._one:
            connection, offered = self._live(), self._subject.offered
            if connection is None or offered is None or offered.eras:
                return
            if self._calls.in_flight and connection.greeting.era == "legacy":
                # There are servers that do not survive it, and what they were at would be lost.
                return
            with anyio.CancelScope() as self._scope:
                found = await probe.with_eras(connection, offered)
                self._subject.learned(eras=found.eras, discover=found.discover)

    def cancel(self) -> None:
        """End it where it is at work."""
        self._scope.cancel()
