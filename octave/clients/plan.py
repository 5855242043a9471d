"""What an import would do: which servers, called what, from which entries; and what stays.

Equal entries of several tools become one server. What octave.toml has already is taken out of
the tools' files all the same, since Octave lends it to them.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octave.clients.configured import Configured
from octave.clients.drafts import Asked, Draft, Known, Secret, Skipped, Word, draft
from octave.packages.manifest import Manifest, ServerEntry
from octave.settings import Reference, Value

Look = Callable[[str], str | None]
"""Gives the value of a key in the secret store."""


@dataclass(frozen=True, slots=True)
class Row:
    """One server to be taken over."""

    name: str
    """In octave.toml."""
    draft: Draft
    origins: tuple[Configured, ...]
    stored: Mapping[str, str] | None = field(default=None, repr=False)
    """The secrets of the same server in octave.toml, by key; None: it is not there yet."""
    notes: tuple[str, ...] = ()

    @property
    def is_present(self) -> bool:
        """Whether octave.toml has it already."""
        return self.stored is not None


@dataclass(frozen=True, slots=True)
class Left:
    """An entry that stays as it is."""

    origin: Configured
    reason: str


@dataclass(frozen=True, slots=True)
class Written:
    """A row as octave.toml will say it."""

    args: tuple[Value, ...]
    env: Mapping[str, Value]
    keys: Mapping[str, Any]
    """All other keys of its table."""
    secrets: Mapping[str, str] = field(repr=False)
    """For the secret store, by key."""
    why: Mapping[str, str] = field(default_factory=dict)
    """Why each of them is one."""


def rows(
    found: Iterable[Configured],
    known: Known,
    wanted: Manifest,
    look: Look,
    only: Collection[str] = (),
) -> tuple[list[Row], list[Left]]:
    """Return what is to be taken over into `wanted`, in the order found, and what is not.

    With `only` these alone, by their names there or here; nothing is said of the others.
    """
    left: list[Left] = []
    drafts: list[tuple[Draft, list[Configured]]] = []
    for each in found:
        try:
            made = draft(each, known)
        except Skipped as reason:
            if not only or each.name in only:
                left.append(Left(each, str(reason)))
            continue
        if only and not {each.name, legal(made.name)} & set(only):
            continue
        equal = next((origins for other, origins in drafts if other == made), None)
        if equal is None:
            drafts.append((made, [each]))
        else:
            equal.append(each)
    return list(_named(drafts, wanted, look)), left


def _named(
    drafts: Sequence[tuple[Draft, list[Configured]]], wanted: Manifest, look: Look
) -> Iterator[Row]:
    taken = set(wanted.servers)
    for made, origins in drafts:
        base = wanted.path.parent
        same = next((s for s in wanted.servers.values() if _says(s, made, look, base)), None)
        if same is not None:
            yield Row(same.name, made, tuple(origins), _stored(same, look))
            continue
        plain = legal(made.name)
        name = _free(plain, taken)
        taken.add(name)
        notes = list(made.notes)
        if name != plain:
            notes.append(f"it is called `{name}`: `{plain}` is another one")
        elif name != origins[0].name:
            notes.append(f"it is called `{name}`")
        yield Row(name, made, tuple(origins), notes=tuple(notes))


def legal(name: str) -> str:
    """Return the nearest name that a server can have: `My Server!` gives `my-server`."""
    bare = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return bare[:40].rstrip("-") or "server"


def _free(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        tail = f"-{number}"
        found = name[: 40 - len(tail)].rstrip("-") + tail
    return found


def written(row: Row, look: Look, base: Path, answers: Mapping[str, str] | None = None) -> Written:
    """Return what octave.toml will say of `row`; its relative paths count from `base`.

    `answers` are by the ids of the questions; without them the question itself stands for each.
    """
    made, book = row.draft, _Book(row.name, look, answers)
    keys: dict[str, Any] = {
        "package": made.package,
        "version": None if made.version == "*" else made.version,
        "bin": made.executable,
        "constraints": made.constraints,
        "command": book.values(made.command),
        "url": made.url,
        "headers": book.named(made.headers),
        "cwd": _shown_folder(made.cwd, base),
        "pass_env": made.pass_env,
        "tools": {
            key: names for key, names in (("allow", made.allow), ("deny", made.deny)) if names
        },
    }
    return Written(
        args=book.values(made.args),
        env=book.named(made.env),
        keys={key: value for key, value in keys.items() if value},
        secrets=book.secrets,
        why=book.why,
    )


def _shown_folder(folder: Path | None, base: Path) -> str | None:
    if folder is None:
        return None
    return "." if folder == base else str(folder)


class _Book:
    """The secrets of one server, each with a key of its own."""

    def __init__(self, name: str, look: Look, answers: Mapping[str, str] | None) -> None:
        self.secrets: dict[str, str] = {}
        self.why: dict[str, str] = {}
        self._name = name
        self._look = look
        self._answers = answers

    def values(self, words: Sequence[Word]) -> tuple[Value, ...]:
        return tuple(map(self._value, words))

    def named(self, words: Mapping[str, Word]) -> dict[str, Value]:
        return {name: self._value(word) for name, word in words.items()}

    def _value(self, word: Word) -> Value:
        if isinstance(word, Secret):
            return self._kept(word.label, word.text, word.why)
        if isinstance(word, Asked):
            return self._answered(word)
        return word

    def _answered(self, word: Asked) -> Value:
        question = word.question
        answer = f"<{question.description}>"
        if self._answers is not None:
            answer = self._answers[question.id]
        text = question.before + answer + question.after
        return self._kept(word.label, text, "it is asked for") if word.secret else text

    def _kept(self, label: str, text: str, why: str) -> Reference:
        number, key = 1, f"{self._name}/{label}"
        # Other workspaces share the store: what they keep under a key stays theirs.
        while self.secrets.get(key, self._look(key)) not in (None, text):
            number += 1
            key = f"{self._name}/{label}_{number}"
        self.secrets[key] = text
        self.why[key] = why
        return Reference("secret", key)


def _stored(server: ServerEntry, look: Look) -> dict[str, str]:
    words = (*(server.command or ()), *server.args, *server.env.values(), *server.headers.values())
    keys = [word.key for word in words if isinstance(word, Reference) and word.kind == "secret"]
    return {key: value for key in keys if (value := look(key)) is not None}


def _says(server: ServerEntry, made: Draft, look: Look, base: Path) -> bool:
    """Whether octave.toml's `server` is what `made` would become."""
    cwd = None if server.cwd is None else base / Path(server.cwd).expanduser()
    plain = (server.package, server.version, server.url, server.executable, server.pass_env)
    lists = (server.constraints, server.tools_allow, server.tools_deny)
    if (
        plain != (made.package, made.version, made.url, made.executable, made.pass_env)
        or lists != (made.constraints, made.allow, made.deny)
        or cwd != made.cwd
        or not server.enabled
    ):
        return False
    words = (*(server.command or ()), *server.args)
    return (
        _all_equal(words, (*made.command, *made.args), look)
        and server.env.keys() == made.env.keys()
        and all(_is_equal(server.env[name], word, look) for name, word in made.env.items())
        and server.headers.keys() == made.headers.keys()
        and all(_is_equal(server.headers[name], word, look) for name, word in made.headers.items())
    )


def _all_equal(values: Sequence[Value], words: Sequence[Word], look: Look) -> bool:
    return len(values) == len(words) and all(
        _is_equal(value, word, look) for value, word in zip(values, words, strict=True)
    )


def _is_equal(value: Value, word: Word, look: Look) -> bool:
    if isinstance(word, Asked):
        # Nobody but the tool knows the answer; whoever gave one to Octave meant it to be this.
        return isinstance(value, Reference) or not word.secret
    if isinstance(word, Secret):
        # One that stands there in plain text is another matter: it is in no store.
        if isinstance(value, Reference) and value.kind == "secret":
            return look(value.key) == word.text
        return False
    return value == word
