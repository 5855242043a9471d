"""What does not work while a runtime goes on without it: told once, and shown in `status`."""

import asyncio
import errno
from collections.abc import Callable
from typing import Any

from octave.runtime import open_files

_NO_FILES = {errno.EMFILE, errno.ENFILE}


class Troubles:
    """Open troubles, a sentence each, by what they are about.

    Args:
        tell: called with each new sentence.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._sentences: dict[str, str] = {}

    @property
    def text(self) -> str | None:
        """All of them; None when there is none."""
        return "; ".join(self._sentences.values()) or None

    def begin(self, about: str, sentence: str) -> None:
        """Something does not work, or not for the same reason as before."""
        if self._sentences.get(about) != sentence:
            self._sentences[about] = sentence
            self._tell(sentence)

    def end(self, about: str) -> None:
        """It works; idempotent."""
        self._sentences.pop(about, None)

    def count_files(self, servers: int) -> None:
        """See whether so many servers can have the open files they may need."""
        allowed, needed = open_files.limit(), open_files.needed(servers)
        if allowed is None or allowed >= needed:
            self.end("files")
            return
        self.begin(
            "files",
            f"only {allowed} files may be open at once, these servers can need {needed}:"
            f" `ulimit -n {needed}` before the runtime starts allows that",
        )

    def hear(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take what the event loop complains of, as its exception handler.

        It stops accepting for a second when no file may be opened, with a traceback for each
        attempt; `look_again` ends that trouble.
        """
        error = context.get("exception")
        is_full = isinstance(error, OSError) and error.errno in _NO_FILES
        if is_full and "socket" in context:
            self.begin("connections", "too many files are open: new connections wait")
        else:
            loop.default_exception_handler(context)

    def look_again(self) -> None:
        """See whether new connections find a file again."""
        if "connections" in self._sentences and open_files.has_room():
            self.end("connections")
