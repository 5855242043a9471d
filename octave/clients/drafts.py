"""What one entry of an AI tool means in Octave's words: a draft of a server.

A draft is complete, with the secrets in it, so that equal ones can be told; it is never shown.
What cannot be kept as it is, is said: in a note where it matters little, else the entry is not
taken over.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from octave.clients import container_words, hiding, launchers, looks
from octave.clients.configured import Configured
from octave.clients.entry import ALLOW, DENY, HEADERS, Entry
from octave.clients.launchers import Bridge, Kept, Package
from octave.clients.references import Copied, Meaning, Question, Unclear
from octave.errors import OctaveError, UsageError
from octave.packages import entries, secret_arguments, variables
from octave.packages.entries import PackageChoice
from octave.packages.imitation import imitated
from octave.packages.names import check_header, check_variable
from octave.packages.registry import Registry, bundled_folder
from octave.settings import Reference


@dataclass(frozen=True, slots=True)
class Secret:
    """A value for the secret store."""

    text: str = field(repr=False)
    label: str = field(compare=False)
    """What it is called in the store, after the server's name."""
    why: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """A value that a person has to give."""

    question: Question
    label: str = field(compare=False)
    secret: bool


Word = str | Reference | Secret | Asked


@dataclass(frozen=True, slots=True)
class Draft:
    """A server as it will be: exactly one of `package`, `command` and `url` is set."""

    package: str | None = None
    """`npm:NAME`, `pypi:NAME`."""
    version: str = "*"
    executable: str | None = None
    constraints: tuple[str, ...] = ()
    command: tuple[Word, ...] = ()
    url: str | None = None
    args: tuple[Word, ...] = ()
    env: Mapping[str, Word] = field(default_factory=dict)
    headers: Mapping[str, Word] = field(default_factory=dict)
    pass_env: tuple[str, ...] = ()
    cwd: Path | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    name: str = field(default="", compare=False)
    """What it should be called; may be unusable."""
    notes: tuple[str, ...] = field(default=(), compare=False)

    def words(self) -> Iterator[Word]:
        """Yield every value in it."""
        yield from (*self.command, *self.args, *self.env.values(), *self.headers.values())


class Skipped(Exception):
    """Why an entry is not taken over."""


class Known:
    """What the bundled registry says about packages; reads its entries once."""

    def __init__(self, read: Callable[[], Sequence[entries.Entry]]) -> None:
        self._read = read
        self._entries: Sequence[entries.Entry] | None = None

    def package(self, kind: str, name: str) -> tuple[entries.Entry, PackageChoice] | None:
        """Return the entry that knows the package, and what it says."""
        for entry in self._all():
            choice = entry.package(kind, name)
            if choice is not None:
                return entry, choice
        return None

    def module(self, name: str) -> str | None:
        """Return the PyPI package that `python -m NAME` runs, None when that is not known."""
        wanted = name.partition(".")[0].replace("_", "-").lower()
        found = self.package("pypi", wanted)
        return found[1].identifier if found else None

    def image(self, words: Sequence[object]) -> entries.Entry | None:
        """Return the entry whose image is among the words of a `docker run`."""
        for entry in self._all():
            for choice in entry.packages:
                if choice.kind == "oci" and any(_is_image(w, choice.identifier) for w in words):
                    return entry
        return None

    def _all(self) -> Sequence[entries.Entry]:
        if self._entries is None:
            self._entries = self._read()
        return self._entries


def draft(found: Configured, known: Known) -> Draft:
    """Return what `found` means.

    Raises:
        Skipped: it is not to be taken over, or cannot be as it is.
    """
    if found.off is not None:
        raise Skipped(found.off)
    raw = found.raw
    if not isinstance(raw, Mapping):
        raise Skipped("it is not an object")
    if any("\0" in text for text in hiding.texts(raw)):
        raise Skipped("it has a NUL character in it")
    entry = Entry(found, raw)
    try:
        made = _remote(entry) if entry.address() else _local(entry, known)
        made = replace(made, name=made.name or found.name)
        allow, deny = entry.tool_names(ALLOW), entry.tool_names(DENY)
    except (Unclear, OctaveError) as error:
        raise Skipped(str(error)) from error
    return replace(made, allow=allow, deny=deny, notes=(*made.notes, *entry.left_out()))


_OURS = re.compile(r"https?://(?:127\.0\.0\.1|localhost|\[::1\]):3737/mcp(?:/.*)?")


def _remote(entry: Entry) -> Draft:
    url = entry.address() or ""
    if _OURS.fullmatch(url):
        raise Skipped("it is Octave itself")
    headers = {
        name: _header(name, entry.means(value, name))
        for name, value in entry.mapping(*HEADERS).items()
    }
    for name, variable in entry.mapping("env_http_headers").items():
        headers[name] = Reference("env", check_variable(str(variable)))
    bearer = entry.raw.get("bearer_token_env_var")
    if bearer:
        value = entry.found.around.environ.get(str(bearer))
        if value is None:
            raise Skipped(f"it needs `{bearer}`, which is not set here")
        headers["Authorization"] = _header(
            "Authorization", Copied(f"Bearer {value}", (str(bearer),))
        )
    return _addressed(url, headers)


def _addressed(url: str, headers: Mapping[str, Word]) -> Draft:
    if not re.match(r"https?://", url):
        raise Skipped("Octave reaches servers at http and https addresses only")
    if looks.why_value(url) is not None:
        raise Skipped("its address holds a secret, and octave.toml keeps addresses readable")
    for name in headers:
        try:
            check_header(name)
        except ValueError as error:
            raise Skipped(str(error)) from None
    return Draft(url=url, headers=headers)


def _header(name: str, value: Meaning) -> Word:
    return _word(name, value, label=secret_arguments.label(name))


def _local(entry: Entry, known: Known) -> Draft:
    command = entry.raw.get("command")
    if not command:
        raise Skipped("it has neither a command nor an address")
    words = [
        entry.means(command, "command"),
        *(entry.argument(w) for w in entry.items("args")),
    ]
    if _is_octave(words):
        raise Skipped("it is Octave itself")
    env = {name: entry.means(value, name) for name, value in _environment(entry).items()}
    for name in env:
        try:
            check_variable(name)
        except ValueError as error:
            raise Skipped(str(error)) from None
    passed = tuple(check_variable(name) for name in _passed(entry))
    base = Draft(cwd=entry.folder(), pass_env=passed)
    project = None if entry.names_folder() else base.cwd
    try:
        found = launchers.recognise(words, known.module)
    except Kept as reason:
        found = None
        base = replace(base, notes=(f"it stays a command: {reason}",))
    if isinstance(found, Bridge):
        return _bridged(found, env)
    if found is None:
        return _own(base, words, env, known)
    if project is not None and not _needs(project, [*found.args, *env.values()]):
        # Else the same package would be another server in each project.
        base = replace(base, cwd=None)
    return _packaged(base, found, env, known)


def _needs(folder: Path, words: Sequence[Meaning]) -> bool:
    """Whether one of `words` may name something in `folder`."""
    texts = [
        text for word in words if isinstance(word, str) for text in (word, word.partition("=")[2])
    ]
    return any(
        text and not text.startswith(("/", "~")) and os.path.lexists(folder / text)
        for text in texts
    )


def _environment(entry: Entry) -> dict[str, Any]:
    """Return the variables of its file, and over them those of the entry."""
    found: dict[str, Any] = {}
    if entry.raw.get("envFile"):
        path = Path(entry.text(entry.raw["envFile"], "envFile"))
        folder = entry.found.around.folder or entry.found.file.parent
        try:
            found |= variables.read_file(folder / path)
        except UsageError as error:
            raise Skipped(error.message) from error
    return found | entry.mapping("env")


def _passed(entry: Entry) -> Iterator[str]:
    """Yield the names of variables that it gets from the tool's own environment."""
    for each in entry.items("env_vars"):
        name = each.get("name") if isinstance(each, Mapping) else each
        if isinstance(name, str):
            yield name


def _own(base: Draft, words: Sequence[Meaning], env: Mapping[str, Meaning], known: Known) -> Draft:
    notes = list(base.notes)
    if launchers.program_of(words) in container_words.PROGRAMS:
        words, values = container_words.without_values(words)
        env = {**env, **values}
        entry = known.image(words)
        notes.append("it runs a container, which stays a command")
        if entry is not None:
            notes.append(f"`octave info {entry.short_name}` shows in which forms it comes")
    marked = _arguments(words[1:], None)
    return replace(
        base,
        command=(_word("", words[0], label="COMMAND"), *marked),
        env={name: _word(name, value, label=name) for name, value in env.items()},
        notes=tuple(notes),
    )


def _bridged(found: Bridge, env: Mapping[str, Meaning]) -> Draft:
    """Return the remote server behind `mcp-remote`, which puts `${X}` of its env into headers."""

    def filled(text: str | Copied) -> str | Copied:
        if isinstance(text, Copied):
            return text

        def value(each: re.Match[str]) -> str:
            given = env.get(each[1])
            if not isinstance(given, str | Copied):
                raise Skipped(f"it mixes `{each[1]}`, which is not known here, with other text")
            return given if isinstance(given, str) else given.text

        return re.sub(r"\$\{(\w+)\}", value, text)

    headers = {name: _header(name, filled(text)) for name, text in found.headers.items()}
    note = "Octave reaches it without `mcp-remote`"
    return replace(_addressed(found.url, headers), notes=(note,))


def _packaged(base: Draft, found: Package, env: Mapping[str, Meaning], known: Known) -> Draft:
    entry, choice = known.package(found.kind, found.name) or (None, None)
    fixed = choice.fixed_args() if choice else ()
    said = {variable.name: variable.secret for variable in choice.variables} if choice else {}
    usual = choice.executable if choice else None
    warnings = entry.notes_for(choice)[:1] if entry and choice and _is_past(entry, choice) else ()
    meant = None if entry else imitated(found.kind, found.name, Registry(bundled_folder()))
    if meant is not None:
        warnings = (f"`{found.kind}:{found.name}` looks like `{meant}`, and is another package",)
    return replace(
        base,
        package=f"{found.kind}:{found.name}",
        version=found.version_range,
        executable=None if found.executable == usual else found.executable,
        constraints=found.constraints,
        args=_arguments(_without(found.args, fixed), choice),
        env={
            name: _word(name, value, label=name, said=said.get(name)) for name, value in env.items()
        },
        name=entry.short_name if entry else "",
        notes=(*base.notes, *found.notes, *warnings),
    )


def _is_past(entry: entries.Entry, choice: PackageChoice) -> bool:
    return entry.deprecated is not None or choice.archived


def _without(args: Sequence[Meaning], fixed: Sequence[str]) -> list[Meaning]:
    """Return `args` without what the registry adds by itself."""
    words = list(args)
    for at in range(len(words) - len(fixed) + 1):
        if fixed and words[at : at + len(fixed)] == list(fixed):
            return words[:at] + words[at + len(fixed) :]
    return words


def _arguments(words: Sequence[Meaning], choice: PackageChoice | None) -> tuple[Word, ...]:
    found: list[Word] = []
    places = secret_arguments.places(words, choice.arguments if choice else ())
    for number, (word, place) in enumerate(zip(words, places, strict=True), 1):
        name = place.option
        label = secret_arguments.label(name) or f"ARG{number}"
        if isinstance(word, str) and not place.has_value:
            found.append(word)
        elif isinstance(word, str) and name and word.startswith(f"{name}="):
            inner = word.partition("=")[2]
            why = looks.why_secret(name, inner, said=place.said)
            found.append(Secret(word, label, why) if why else word)
        else:
            found.append(_word(name, word, label=label, said=place.said))
    return tuple(found)


def _word(name: str, value: Meaning, *, label: str, said: bool | None = None) -> Word:
    if isinstance(value, Reference):
        return value
    if isinstance(value, Question):
        secret = value.secret or said is True or looks.is_secret_name(name)
        return Asked(value, label, secret)
    text = value.text if isinstance(value, Copied) else value
    why = looks.why_secret(name, text, said=said)
    if why is None and isinstance(value, Copied) and any(map(looks.is_secret_name, value.names)):
        why = "it is made from a variable with the name of a secret"
    if why is not None and isinstance(value, Copied):
        why += f", and is a copy of {', '.join(f'`{each}`' for each in value.names)} as it is now"
    return Secret(text, label, why) if why else text


def _is_octave(words: Sequence[Meaning]) -> bool:
    named = [word for word in words if isinstance(word, str)]
    if "proxy" not in named[1:]:
        return False
    return launchers.program_of(words) in {"octave", "octave-mcp"} or named[1:5] in (
        ["-P", "-m", "octave", "proxy"],
        ["-m", "octave", "proxy", *named[4:5]],
    )


def _is_image(word: object, identifier: str) -> bool:
    """Whether `word` is the image, whatever its host and tag."""
    if not isinstance(word, str):
        return False
    bare = re.sub(r"(?::[\w.-]+)?(?:@sha256:[0-9a-f]+)?$", "", word)
    return bare == identifier or bare.endswith(f"/{identifier}")


Kind = Literal["npm", "pypi", "command", "remote"]


def kind_of(made: Draft) -> Kind:
    """Return what `made` will be."""
    if made.package is not None:
        return "npm" if made.package.startswith("npm:") else "pypi"
    return "remote" if made.url is not None else "command"
