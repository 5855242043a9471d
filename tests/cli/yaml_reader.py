"""A strict reader of the YAML that Octave writes; whatever goes beyond that is an error.

Written from YAML 1.2.2 alone: block mappings and sequences, plain words, JSON's texts and numbers,
literal blocks. `octave.export.yaml_text` was compared with PyYAML, which is no dependency.
"""

import json
import re
from typing import Any

_KEY = re.compile(r'("(?:[^"\\]|\\.)*"|[A-Za-z/][A-Za-z0-9/_.-]*):(?: (.*))?')
_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def documents(text: str) -> list[Any]:
    """Return every document of `text`."""
    return [_Reader(part).whole() for part in text.split("---\n")]


class _Reader:
    def __init__(self, text: str) -> None:
        lines = text.split("\n")
        assert lines.pop() == "", "the last line has no end"
        while lines and lines[0].startswith("#"):
            del lines[0]
        self._lines = lines
        self._at = 0

    def whole(self) -> Any:
        found = self._node(0)
        assert self._at == len(self._lines), self._lines[self._at]
        return found

    def _peek(self, indent: int) -> str | None:
        """Return the next line without its indentation; None when it is not one of this depth."""
        if self._at == len(self._lines):
            return None
        line = self._lines[self._at]
        depth = len(line) - len(line.lstrip(" "))
        assert depth <= indent or line == "", f"too deep: {line}"
        return line[indent:] if depth == indent and line else None

    def _node(self, indent: int) -> Any:
        first = self._peek(indent)
        assert first is not None, self._lines[self._at :]
        return self._list(indent) if first.startswith("- ") else self._map(indent)

    def _list(self, indent: int) -> list[Any]:
        found: list[Any] = []
        while (line := self._peek(indent)) is not None and line.startswith("- "):
            rest = line[2:]
            if rest.startswith("- ") or _KEY.fullmatch(rest):
                # What stands behind the dash is the first line of what is nested.
                self._lines[self._at] = f"{' ' * indent}  {rest}"
                found.append(self._node(indent + 2))
            else:
                self._at += 1
                found.append(self._value(rest, indent))
        return found

    def _map(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (line := self._peek(indent)) is not None and not line.startswith("- "):
            parts = _KEY.fullmatch(line)
            assert parts, line
            key = json.loads(parts[1]) if parts[1].startswith('"') else parts[1]
            assert key not in found, key
            self._at += 1
            found[key] = (
                self._node(indent + 2) if parts[2] is None else self._value(parts[2], indent)
            )
        return found

    def _value(self, text: str, indent: int) -> Any:
        if text == "|":
            lines = []
            while self._at < len(self._lines):
                line = self._lines[self._at]
                if line and not line.startswith(" " * (indent + 2)):
                    break
                lines.append(line[indent + 2 :])
                self._at += 1
            return "".join(f"{line}\n" for line in lines)
        if re.fullmatch(r"[A-Za-z/][A-Za-z0-9/_.-]*", text) and text not in _WORDS:
            return text
        return json.loads(text)
