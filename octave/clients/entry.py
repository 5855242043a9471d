"""One entry of an AI tool, read key by key in the spelling of that tool. Pure.

Tools call the same things by many names, and each has keys of its own: what is not understood is
told, and never guessed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from octave.clients.configured import Configured
from octave.clients.references import Copied, Meaning, Unclear, meaning
from octave.settings import Reference

ALLOW = ("includeTools", "enabled_tools")
DENY = ("excludeTools", "disabled_tools", "disabledTools")
_ADDRESS = ("url", "serverUrl", "httpUrl")
HEADERS = ("headers", "http_headers")
_UNDERSTOOD = frozenset(
    (
        *("type", "command", "args", "env", "cwd", "working_directory", "envFile", "env_vars"),
        *("disabled", "enabled", "bearer_token_env_var", "env_http_headers", "name"),
        *("description", "gallery", "version", "$schema"),
        *(*_ADDRESS, *HEADERS, *ALLOW, *DENY),
    )
)


class Entry:
    """One entry; every method raises `Unclear` for what cannot be taken over."""

    def __init__(self, found: Configured, raw: Mapping[str, Any]) -> None:
        self.found = found
        self.raw = raw

    def means(self, text: Any, what: str) -> Meaning:
        """Return what a value stands for; `what` names it where that is not known."""
        if isinstance(text, float | int):
            # Numbers of JSON are floats here; a variable is text in any case.
            whole = isinstance(text, bool) or not float(text).is_integer()
            text = str(text).lower() if whole else str(int(text))
        if not isinstance(text, str) or "\0" in text:
            raise Unclear(f"its `{what}` is not text")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise Unclear(f"its `{what}` is not text")
        return meaning(text, self.found.client.syntax, self.found.around)

    def argument(self, text: Any) -> Meaning:
        """As `means`; a variable that only the entry itself sets is for the program to read."""
        named = re.findall(r"\$\{(\w+)\}", text) if isinstance(text, str) else []
        own = self.mapping("env").keys() - self.found.around.environ.keys()
        return text if own.intersection(named) else self.means(text, "args")

    def text(self, text: Any, what: str) -> str:
        """Return a value that has to be known at once."""
        found = self.means(text, what)
        if isinstance(found, Copied):
            return found.text
        if isinstance(found, Reference) and self.found.around.environ.get(found.key):
            return self.found.around.environ[found.key]
        if not isinstance(found, str):
            raise Unclear(f"its `{what}` is not known before it runs")
        return found

    def mapping(self, *names: str) -> dict[str, Any]:
        """Return the members of the objects under `names`, empty without any."""
        found: dict[str, Any] = {}
        for name in names:
            value = self.raw.get(name)
            if value is not None and not isinstance(value, Mapping):
                raise Unclear(f"its `{name}` is not an object")
            found |= value or {}
        return found

    def items(self, name: str) -> list[Any]:
        """Return the items of the array under `name`, empty without one."""
        value = self.raw.get(name)
        if value is not None and not isinstance(value, list):
            raise Unclear(f"its `{name}` is not an array")
        return list(value or [])

    def address(self) -> str | None:
        """Return the address of a remote server; None for a command."""
        found = [name for name in _ADDRESS if self.raw.get(name)]
        if found and self.raw.get("command"):
            raise Unclear(f"it has both `command` and `{found[0]}`")
        return self.text(self.raw[found[0]], found[0]) if found else None

    def names_folder(self) -> bool:
        """Whether it says itself where it runs."""
        return bool(self.raw.get("cwd") or self.raw.get("working_directory"))

    def folder(self) -> Path | None:
        """Return where it runs: as written, else the project's folder."""
        around = self.found.around
        written = self.raw.get("cwd") or self.raw.get("working_directory")
        if not written:
            return around.folder
        folder = Path(self.text(written, "cwd"))
        if folder.is_absolute() or str(folder).startswith("~"):
            return folder
        if around.folder is None:
            raise Unclear("its `cwd` depends on the folder that is open")
        return around.folder / folder

    def tool_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of tools under `names`."""
        found = [each for name in names for each in self.items(name) if isinstance(each, str)]
        return tuple(each for each in found if each and each.isprintable())

    def left_out(self) -> Iterator[str]:
        """Yield a note for each key that means nothing to Octave."""
        for name in sorted(self.raw.keys() - _UNDERSTOOD):
            yield f"`{name}` is left out"
