"""References to values, at launch only; and the store of secrets they may lead to.

A value never appears in an error, a repr or an argument list of this module. The store is the
home's secrets.toml, 0600; `Secrets` is the seam where a keyring of the system can take its place.
"""

import contextlib
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import tomli_w
from filelock import FileLock, Timeout

from octave.errors import Locked, StartFailed, StorageFailed
from octave.home import Home, atomic_write, private_folder
from octave.settings import Reference, Value

FORMAT = 1
LOCK_WAIT_S = 60.0
"""The lock is held for the milliseconds of one read and write; longer is a hung process."""
VALUE_BYTES = 128 * 1024
"""The longest argument or variable Linux passes to a process (MAX_ARG_STRLEN, execve(2))."""
_HEADER = """# Secrets of MCP servers, kept by Octave. Readable by you alone; do not commit it.
"""


class Secrets:
    """The secrets of one home; keys have the form SERVER/VARIABLE. Reads the file at each call.

    Raises, in every method:
        StorageFailed: the file is damaged, or others can read it.
        OSError: it cannot be read or written.
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    def get(self, key: str) -> str | None:
        """Return the value of `key`, None when it is not stored."""
        return self._read().get(key)

    def list(self) -> list[str]:
        """Return all keys, sorted."""
        return sorted(self._read())

    def set(self, key: str, value: str) -> None:
        """Store `value` under `key`.

        Raises:
            ValueError: `key` is not SERVER/VARIABLE, or `value` cannot be a variable.
        """
        if not all(key.partition("/")):
            raise ValueError(f"`{key}` does not have the form SERVER/VARIABLE")
        if "\0" in value:
            raise ValueError(f"the value for `{key}` contains a NUL character")
        with self._locked():
            self._write(self._read() | {key: value})

    def remove(self, key: str) -> bool:
        """Forget `key`, and tell whether it was stored."""
        with self._locked():
            stored = self._read()
            if key not in stored:
                return False
            del stored[key]
            self._write(stored)
            return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        private_folder(self._home.locks)
        # The dot keeps it apart from the locks that are named after servers.
        lock = FileLock(self._home.locks / "secrets.toml.lock", timeout=LOCK_WAIT_S, mode=0o600)
        try:
            with lock:
                yield
        except Timeout as error:
            raise Locked(
                f"another process holds `{lock.lock_file}`",
                hint="end that process, then try again",
            ) from error

    def _read(self) -> dict[str, str]:
        path = self._home.secrets
        try:
            with path.open("rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                    raise StorageFailed(f"`{path}` can be read by others", hint=f"chmod 600 {path}")
                found = tomllib.loads(file.read().decode())
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            # Its cause would quote the text around the fault: a secret.
            raise _damaged(path) from None
        version, stored = found.get("version"), found.get("secrets")
        if isinstance(version, int) and version > FORMAT:
            raise StorageFailed(
                f"`{path}` has format {version}, and this version of Octave reads {FORMAT}",
                hint="install a newer Octave: `pip install -U octave-mcp`",
            )
        if version != FORMAT or not isinstance(stored, dict):
            raise _damaged(path)
        return {key: value for key, value in stored.items() if isinstance(value, str)}

    def _write(self, stored: Mapping[str, str]) -> None:
        document = {"version": FORMAT, "secrets": {key: stored[key] for key in sorted(stored)}}
        text = _HEADER + tomli_w.dumps(document)
        private_folder(self._home.root)
        atomic_write(self._home.secrets, text.encode(), 0o600)


def _damaged(path: Path) -> StorageFailed:
    return StorageFailed(
        f"`{path}` is damaged", hint="repair it, or move it away and set the secrets anew"
    )


def resolve(value: Value, environ: Mapping[str, str], store: Secrets, base: Path) -> str:
    """Return the text that `value` stands for; the paths of files count from `base`.

    One trailing line break of a file is not part of its value.

    Raises:
        StartFailed: a reference leads nowhere; names the reference and what to do.
    """
    if isinstance(value, str):
        return value
    if value.kind == "env":
        return _of_environment(value, environ)
    if value.kind == "secret":
        return _of_store(value, store)
    return _of_file(value, base)


def _of_environment(reference: Reference, environ: Mapping[str, str]) -> str:
    if reference.key not in environ:
        raise _unresolved(
            reference,
            "that variable is not set for the runtime",
            f"export {reference.key}, run `octave shutdown`, then try again",
        )
    return environ[reference.key]


def _of_store(reference: Reference, store: Secrets) -> str:
    try:
        found = store.get(reference.key)
    except StorageFailed as error:
        raise StartFailed(error.message, hint=error.hint) from error
    except OSError as error:
        raise _unresolved(reference, f"the store cannot be read: {error.strerror}") from error
    if found is None:
        server, _, variable = reference.key.partition("/")
        raise _unresolved(
            reference, "no such secret is stored", f"octave install {server} -e {variable}"
        )
    return found


def _of_file(reference: Reference, base: Path) -> str:
    path = base / os.path.expanduser(reference.key)  # noqa: PTH111 - an unknown ~user stays as it is
    try:
        with path.open("rb") as file:
            content = file.read(VALUE_BYTES + 1)
        text = content.decode()
    except UnicodeDecodeError:
        raise _unresolved(reference, "the file is not UTF-8 text") from None
    except OSError as error:
        raise _unresolved(
            reference, f"`{path}` cannot be read: {error.strerror}", f"create `{path}`"
        ) from error
    if len(content) > VALUE_BYTES or "\0" in text:
        raise _unresolved(reference, "the file is too long, or not text, for a value")
    return text.removesuffix("\n").removesuffix("\r")


def _unresolved(reference: Reference, reason: str, hint: str | None = None) -> StartFailed:
    return StartFailed(
        f"the reference `{reference}` cannot be resolved: {reason}",
        hint=hint,
        details={"reference": {reference.kind: reference.key}},
    )
