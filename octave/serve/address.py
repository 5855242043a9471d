"""Where a runtime is found: its lock, socket, runtime.json and token in the workspace.

They are there as long as the runtime serves. What somebody removes meanwhile is made again, since
without it nobody could reach the runtime, not even to end it.
"""

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import filelock

from octave.errors import Locked
from octave.home import Workspace, private_folder
from octave.serve import claim
from octave.serve.socket import bind

Stamp = tuple[int, int]
"""Device and inode: which file it is that has a name now."""


class Address:
    """The address of the one runtime of a workspace.

    Args:
        lock: held; given back with the rest.
    """

    def __init__(
        self, workspace: Workspace, environ: Mapping[str, str], lock: filelock.BaseFileLock
    ) -> None:
        self.path = workspace.new_socket(environ)
        self._workspace = workspace
        self._locks = [lock]
        self._is_ours = True
        self._facts: Mapping[str, object] = {}
        self._token: str | None = None
        self._seen: dict[Path, Stamp | None] = {}
        self._note(workspace.runtime_lock)

    def listen(self) -> socket.socket:
        """Return a socket that listens at `path`.

        Raises:
            OSError: the folder cannot be written.
        """
        listener = bind(self.path)
        self._note(self.path)
        return listener

    def publish(self, facts: Mapping[str, object], token: str | None) -> None:
        """Say in the workspace how the runtime is reached; None: without HTTP there is no token.

        Raises:
            OSError: the folder cannot be written.
        """
        self._facts, self._token = dict(facts), token
        # Until it is written `mend` finds it missing.
        self._seen[self._workspace.runtime_file] = None
        claim.write_facts(self._workspace, facts, token)
        self._note(self._workspace.runtime_file)
        if token is not None:
            self._note(self._workspace.token)

    def mend(self) -> socket.socket | None:
        """Make again what is gone; return the new listener if it is the socket, else None.

        Blocks for the milliseconds that takes; when all is there, for microseconds.

        Raises:
            Locked: the lock was removed too, and the workspace has another runtime by now.
            OSError: it cannot be made for now.
        """
        lost = self._lost()
        if not lost:
            return None
        self._workspace.prepare()
        # First: only the holder of the lock may replace what lies there.
        if self._workspace.runtime_lock in lost:
            self._lock_again()
        if lost & {self._workspace.runtime_file, self._workspace.token}:
            self.publish(self._facts, self._token)
        if self.path not in lost:
            return None
        private_folder(self.path.parent)
        return self.listen()

    def give_back(self) -> None:
        """Remove everything, the lock last; idempotent."""
        if self._is_ours and self._locks[-1].is_locked:
            claim.give_back(self._workspace, self.path)
        for lock in self._locks:
            lock.release(force=True)

    def _lock_again(self) -> None:
        try:
            self._locks.append(claim.take_lock(self._workspace))
        except Locked:
            self._is_ours = False
            raise
        self._note(self._workspace.runtime_lock)

    def _note(self, path: Path) -> None:
        self._seen[path] = _stamp(path)

    def _lost(self) -> set[Path]:
        return {path for path, seen in self._seen.items() if _stamp(path) != seen}


def _stamp(path: Path) -> Stamp | None:
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        return found.st_dev, found.st_ino
    return None
