"""The editor of each file format."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from octave.clients import json_edit, toml_entries
from octave.clients.json_edit import Entry, Insertion
from octave.clients.jsonc import Node

Format = Literal["json", "toml"]


class Editor(Protocol):
    """What `json_edit` and `toml_entries` can do; documented there."""

    EMPTY: str

    def find(self, text: str, path: Sequence[str]) -> Node | None: ...  # noqa: D102

    def insert(self, text: str, path: Sequence[str], entry: Entry) -> Insertion: ...  # noqa: D102

    def replace(self, text: str, path: Sequence[str], entry: Entry) -> str: ...  # noqa: D102

    def remove(  # noqa: D102
        self, text: str, path: Sequence[str], created: int = 1, gap: str | None = None
    ) -> str: ...

    def snippet(self, path: Sequence[str], entry: Entry) -> str: ...  # noqa: D102


EDITORS: Mapping[Format, Editor] = {"json": json_edit, "toml": toml_entries}
