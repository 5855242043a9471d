"""Keyrings of the tests' own: real back ends of the library, one in memory, one in a file."""

import json
import os
from pathlib import Path
from typing import Any

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

VARIABLE = "OCTAVE_TEST_DRAWER"
"""Names the file of a `Drawer`; while that is a folder the drawer is locked."""


class Memory(KeyringBackend):
    """Keeps all in `kept`; `trouble` is raised by every use of it."""

    priority: Any = 5

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.trouble: Exception | None = None

    def get_password(self, service: str, username: str) -> str | None:
        self._use()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._use()
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._use()
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError("not found")

    def _use(self) -> None:
        if self.trouble is not None:
            raise self.trouble


class Forgetful(Memory):
    """Takes everything and keeps nothing, as the library's null back end does."""

    def set_password(self, service: str, username: str, password: str) -> None:
        self._use()


class Clear(Memory):
    """One that the library itself does not recommend."""

    priority: Any = 0.5


class Drawer(KeyringBackend):
    """Keeps all in a file, for several processes."""

    priority: Any = 5

    def get_password(self, service: str, username: str) -> str | None:
        found = self._kept().get(f"{service} {username}")
        return None if found is None else str(found)

    def set_password(self, service: str, username: str, password: str) -> None:
        self._write(self._kept() | {f"{service} {username}": password})

    def delete_password(self, service: str, username: str) -> None:
        kept = self._kept()
        del kept[f"{service} {username}"]
        self._write(kept)

    def _path(self) -> Path:
        path = Path(os.environ[VARIABLE])
        if path.is_dir():
            raise KeyringLocked("the drawer is locked")
        return path

    def _kept(self) -> dict[str, str]:
        path = self._path()
        found: dict[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def _write(self, kept: dict[str, str]) -> None:
        self._path().write_text(json.dumps(kept), encoding="utf-8")
