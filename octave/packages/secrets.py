"""References to values, at launch only; and the store of secrets they may lead to.

A value never appears in an error, a repr or an argument list of this module. Each secret lies in
one of two places, chosen when it is first stored and kept from then on: the system's keyring where
it works, else the home's secrets.toml, 0600. What stands in the file counts, whatever the keyring
has under the same name.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from octave.errors import Locked, StartFailed, StorageFailed, storage_hint
from octave.home import Home, private_folder
from octave.packages import keyring, secret_file
from octave.packages.keyring import Index, Keyring, Unusable
from octave.settings import Reference, Value

LOCK_WAIT_S = 60.0
"""The lock is held for the milliseconds of one read and write; longer is a hung process."""
VALUE_BYTES = 128 * 1024
"""The longest argument or variable Linux passes to a process (MAX_ARG_STRLEN, execve(2))."""

Place = Literal["keyring", "file"]


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a secret was stored."""

    place: Place
    reason: str = ""
    """Why a new one is not in the keyring."""


class Secrets:
    """The secrets of one home; keys have the form SERVER/VARIABLE. Reads the files at each call.

    Raises, in every method:
        StorageFailed: a file is damaged, or others can read it; or the keyring that has the
            secret cannot be used.
        OSError: a file cannot be read or written.
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    def get(self, key: str) -> str | None:
        """Return the value of `key`, None when it is not stored."""
        value = self._file().get(key)
        if value is not None:
            return value
        index = self._index()
        if key not in index.keys:
            return None
        try:
            return Keyring().get(index.service, key)
        except Unusable as error:
            raise keyring.unreachable(key, error) from None

    def list(self) -> list[str]:
        """Return all keys, sorted."""
        return sorted(self.places())

    def places(self) -> dict[str, Place]:
        """Return where each key is kept. Asks no keyring: one may have lost a value since."""
        found: dict[str, Place] = dict.fromkeys(self._index().keys, "keyring")
        return found | dict.fromkeys(self._file(), "file")

    def set(self, key: str, value: str) -> Kept:
        """Store `value` under `key`, where it was before, else in the keyring if that works.

        Raises:
            ValueError: `key` is not SERVER/VARIABLE, or `value` cannot be a variable.
        """
        if not all(key.partition("/")):
            raise ValueError(f"`{key}` does not have the form SERVER/VARIABLE")
        if "\0" in value:
            raise ValueError(f"the value for `{key}` contains a NUL character")
        reason = ""
        if key not in self._file():
            try:
                self._set_in_keyring(key, value)
            except Unusable as error:
                reason = str(error)
            else:
                return Kept("keyring")
        with self._locked():
            secret_file.write(self._home.secrets, self._file() | {key: value})
        if key in self._index().keys:
            self._reindex(lambda index: index.outdated(key))
        return Kept("file", reason)

    def remove(self, key: str) -> bool:
        """Forget `key`, and tell whether it was stored."""
        place, index = self.places().get(key), self._index()
        if place is None:
            return False
        if key in index.keys | index.old:
            try:
                self._remove_from_keyring(key)
            except Unusable as error:
                if place == "keyring":
                    raise keyring.unreachable(key, error) from None
                # Else it would count again once it can be read.
                self._reindex(lambda index: index.outdated(key))
        with self._locked():
            stored = self._file()
            if stored.pop(key, None) is not None:
                secret_file.write(self._home.secrets, stored)
        return True

    def _set_in_keyring(self, key: str, value: str) -> None:
        # It may have a person asked, and the lock is nobody's to hold for that long.
        ring = Keyring()
        # First, since a value that no index knows would stay for good.
        index = self._reindex(lambda index: index.having(key))
        try:
            ring.set(index.service, key, value)
        except Unusable:
            self._reindex(lambda index: index.outdated(key))
            raise
        for old in index.old:
            with contextlib.suppress(Unusable):
                self._remove_from_keyring(old)

    def _remove_from_keyring(self, key: str) -> None:
        Keyring().remove(self._index().service, key)
        self._reindex(lambda index: index.without(key))

    def _reindex(self, change: Callable[[Index], Index]) -> Index:
        with self._locked():
            index = change(self._index())
            keyring.write_index(self._home.keyring, index)
        return index

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

    def _file(self) -> dict[str, str]:
        return secret_file.read(self._home.secrets)

    def _index(self) -> Index:
        return keyring.read_index(self._home.keyring)


@contextlib.contextmanager
def stored(secrets: Secrets, given: Mapping[str, str]) -> Iterator[list[Kept]]:
    """Keep the `given` secrets if what follows succeeds, else what was stored before.

    Yields where each of them is kept.
    """
    before = {key: secrets.get(key) for key in given}
    try:
        yield [secrets.set(key, value) for key, value in given.items()]
    except BaseException:
        for key, old in before.items():
            if old is None:
                secrets.remove(key)
            else:
                secrets.set(key, old)
        raise


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
        reason = f"the store cannot be read: {error.strerror}"
        raise _unresolved(reference, reason, storage_hint(error)) from error
    if found is None:
        server, _, variable = reference.key.partition("/")
        raise _unresolved(
            reference, "no such secret is stored", f"octave secret set {server} {variable}"
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
