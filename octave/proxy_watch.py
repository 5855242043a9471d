"""What `octave proxy` waits for: the descriptors that can be read or written now.

poll(2) and not select(2), which takes longer than all else that the proxy does with a short line.
"""

import select

READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL
"""Something, its end or its error."""
WRITABLE = select.POLLOUT | select.POLLHUP | select.POLLERR | select.POLLNVAL
"""It takes something, or fails to."""

Wanted = tuple[tuple[int, ...], tuple[int, ...]]
"""Descriptors to read and to write."""


class Watch:
    """Descriptors, and what is to be known of them. What is closed must not be asked for again."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._wanted: Wanted = (), ()

    def wait(self, wanted: Wanted, timeout_s: float) -> dict[int, int]:
        """Wait for one of them, so long at most; return what there is, by descriptor."""
        if wanted != self._wanted:
            self._change(wanted)
        return dict(self._poll.poll(int(timeout_s * 1000) + 1))

    def _change(self, wanted: Wanted) -> None:
        for descriptor in {*self._wanted[0], *self._wanted[1]}:
            self._poll.unregister(descriptor)
        self._wanted = readers, writers = wanted
        for descriptor in {*readers, *writers}:
            events = select.POLLIN if descriptor in readers else 0
            self._poll.register(
                descriptor, events | (select.POLLOUT if descriptor in writers else 0)
            )
