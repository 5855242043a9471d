"""What `octave proxy` waits for: the descriptors that can be read or written now.

poll(2) and not select(2), which takes longer than all else that the proxy does with a short line.
"""

import select

_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL
_WRITABLE = select.POLLOUT | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Watch:
    """Descriptors, and what is to be known of them. What is closed must not be asked for again."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._wanted: tuple[tuple[int, ...], tuple[int, ...]] = (), ()
        self._found: dict[int, int] = {}

    def wait(self, readers: tuple[int, ...], writers: tuple[int, ...], timeout_s: float) -> bool:
        """Wait for one of them, so long at most; return whether there is any."""
        wanted = readers, writers
        if wanted != self._wanted:
            self._change(wanted)
        self._found = dict(self._poll.poll(int(timeout_s * 1000) + 1))
        return bool(self._found)

    def can_read(self, descriptor: int) -> bool:
        """Whether that one, a reader, can be read: something, its end or its error."""
        return descriptor in self._wanted[0] and bool(self._found.get(descriptor, 0) & _READABLE)

    def can_write(self, descriptor: int) -> bool:
        """Whether that one, a writer, takes something, or fails to."""
        return descriptor in self._wanted[1] and bool(self._found.get(descriptor, 0) & _WRITABLE)

    def _change(self, wanted: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
        for descriptor in {*self._wanted[0], *self._wanted[1]}:
            self._poll.unregister(descriptor)
        self._wanted = readers, writers = wanted
        for descriptor in {*readers, *writers}:
            events = select.POLLIN if descriptor in readers else 0
            self._poll.register(
                descriptor, events | (select.POLLOUT if descriptor in writers else 0)
            )
