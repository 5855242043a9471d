"""What a login to a remote server brought: kept in the secret store, one record for each address.

The address is part of the key, so that a changed `url` never sends the tokens of one host to
another. The record is text of whoever logs in (`octave.runtime.remote_login`); nothing here reads
it.
"""

import hashlib
import threading
from pathlib import Path

from filelock import FileLock, Timeout

from octave.home import Home, private_folder
from octave.packages.secrets import Secrets


def login_key(server: str, url: str) -> str:
    """Return the key in the secret store of the login of `server` to that address."""
    return f"{server}/oauth-{_digest(url)}"


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]


class Tokens:
    """The login to one address, by one home. Raises what `Secrets` does.

    The lock belongs to this object: two of them exclude each other, also within one process.
    """

    def __init__(self, home: Home, server: str, url: str) -> None:
        self._key = login_key(server, url)
        self._secrets = Secrets(home)
        # The dot keeps it apart from the locks that are named after servers.
        path = home.locks / f"{server}.oauth-{_digest(url)}.lock"
        # Taken in one thread and given back in another.
        self._lock = FileLock(path, mode=0o600, thread_local=False)
        # The other one lets whoever holds it take it again.
        self._once = threading.Lock()

    def __repr__(self) -> str:
        return f"Tokens({self._key!r})"

    def read(self) -> str | None:
        """Return the record; None when there is none."""
        return self._secrets.get(self._key)

    def write(self, text: str) -> None:
        """Replace the record."""
        self._secrets.set(self._key, text)

    def remove(self) -> bool:
        """Forget the record, and tell whether there was one."""
        return self._secrets.remove(self._key)

    def try_lock(self) -> bool:
        """Take the lock if it is free; tell whether it is ours now."""
        if not self._once.acquire(blocking=False):
            return False
        try:
            private_folder(Path(self._lock.lock_file).parent)
            self._lock.acquire(timeout=0)
        except BaseException as error:
            self._once.release()
            if isinstance(error, Timeout):
                return False
            raise
        return True

    def unlock(self) -> None:
        """Give the lock back."""
        self._lock.release()
        self._once.release()
