"""What is exported: servers of a manifest with their pins, and the variables they then need."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from octave.clients import looks
from octave.clients.drafts import Known
from octave.errors import LockStale, OctaveError
from octave.home import Workspace
from octave.packages import lockfile, manifest, manifest_change
from octave.packages.entries import PackageChoice
from octave.packages.lockfile import Pin
from octave.packages.manifest import Manifest, Reference, ServerEntry, Value
from octave.packages.names import split_package
from octave.packages.registry import Registry, bundled_folder
from octave.packages.resolve import answers


@dataclass(frozen=True, slots=True)
class Exported:
    """One text for another engine."""

    text: str
    servers: tuple[str, ...]
    """The names of those in it."""
    notes: tuple[str, ...]
    """What a person has to know or do, sentences."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the environment that somebody has to set."""

    name: str
    server: str
    what: str
    """Where its value is today, or what it is for."""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Item:
    """One server, with its lock entry where it comes from a package."""

    server: ServerEntry
    """Each reference is one to the environment, and no literal looks like a secret."""
    pin: Pin | None
    known: PackageChoice | None


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported."""

    workspace: Workspace
    wanted: Manifest
    items: tuple[Item, ...]
    variables: tuple[Variable, ...]


def read(workspace: Workspace, names: Sequence[str]) -> Subject:
    """Return the servers called `names`, else all that are enabled.

    Raises:
        ServerNotFound: there is none of that name.
        ManifestError, IntegrityFailed: a file cannot be read.
        LockStale: a package is not locked as the manifest wants it.
        OctaveError: there is no server at all.
    """
    wanted = manifest.load(workspace.manifest)
    chosen = [manifest_change.find_server(wanted, name) for name in dict.fromkeys(names)]
    chosen = chosen or [server for server in wanted.servers.values() if server.enabled]
    if not chosen:
        raise OctaveError(
            f"`{workspace.manifest}` names no server that is enabled", hint="octave install NAME"
        )
    pins = lockfile.read(workspace.lockfile).pins
    stale = [s.name for s in chosen if s.package and not answers(pins.get(s.name), s)]
    if stale:
        raise LockStale(
            f"`octave.lock` does not answer {', '.join(f'`{name}`' for name in stale)}",
            hint="octave install",
            details={"differences": stale},
        )
    known = Known(Registry(bundled_folder()).entries)
    sources = _Sources(_named(chosen))
    items = tuple(_item(server, pins.get(server.name), known, sources) for server in chosen)
    return Subject(workspace, wanted, items, tuple(sources.variables))


def _named(servers: Iterable[ServerEntry]) -> Iterator[str]:
    """Yield the variables that have a meaning already."""
    yield from ("HOME", "PATH", "OCTAVE_HOME", "OCTAVE_TOKEN")
    for server in servers:
        yield from server.pass_env
        values = (*server.env.values(), *server.headers.values(), *server.args)
        for value in (*values, *(server.command or ())):
            if isinstance(value, Reference) and value.kind == "env":
                yield value.key


def _item(server: ServerEntry, pin: Pin | None, known: Known, sources: "_Sources") -> Item:
    choice = None
    if server.package is not None:
        kind, package = split_package(server.package)
        choice = (known.package(kind, package) or (None, None))[1]
    said = {each.name: each.secret for each in choice.variables} if choice else {}
    carried = replace(
        server,
        env={
            name: sources.value(server.name, name, value, said=said.get(name))
            for name, value in server.env.items()
        },
        headers={
            name: sources.value(server.name, name, value) for name, value in server.headers.items()
        },
        args=_words(server, server.args, sources),
        command=None if server.command is None else _words(server, server.command, sources),
    )
    for name in server.pass_env:
        sources.add(Variable(name, server.name, "passed on if it is set", required=False))
    return Item(carried, pin if server.package is not None else None, choice)


def _words(server: ServerEntry, words: Sequence[Value], sources: "_Sources") -> tuple[Value, ...]:
    def carried() -> Iterator[Value]:
        flag = ""
        for number, word in enumerate(words, 1):
            name, equals, inner = word.partition("=") if isinstance(word, str) else ("", "", "")
            is_flag = re.match(r"--?[A-Za-z]", name) is not None
            label = name if is_flag else flag or f"ARG{number}"
            if is_flag and not (equals and looks.why_secret(name, inner)):
                yield word
            else:
                yield sources.value(server.name, label, word, called=name if is_flag else flag)
            flag = name if is_flag and not equals else ""

    return tuple(carried())


class _Sources:
    """Gives what must not leave the name of a variable; two things never get the same."""

    def __init__(self, names: Iterable[str]) -> None:
        self.variables: list[Variable] = []
        self._meant: dict[str, object] = {name: Reference("env", name) for name in names}

    def add(self, variable: Variable) -> None:
        """Note that somebody has to set it."""
        if all(
            (each.name, each.server) != (variable.name, variable.server) for each in self.variables
        ):
            self.variables.append(variable)

    def value(
        self,
        server: str,
        label: str,
        value: Value,
        *,
        said: bool | None = None,
        called: str | None = None,
    ) -> Value:
        """Return `value`, or the variable that stands for it from now on.

        `label` makes a name for it; `called` is the name that tells whether a literal is a secret.
        """
        if isinstance(value, str):
            why = looks.why_secret(label if called is None else called, value, said=said)
            if why is None:
                return value
            name = self._name(server, label, (server, label))
            self.add(Variable(name, server, f"stands in octave.toml, and is left out: {why}"))
            return Reference("env", name)
        if value.kind == "env":
            self.add(Variable(value.key, server, "a variable of the environment until now, too"))
            return value
        last = value.key.rpartition("/")[2] if value.kind == "secret" else label
        name = self._name(server, last, value)
        where = f"the secret `{value.key}`" if value.kind == "secret" else f"the file `{value.key}`"
        self.add(Variable(name, server, f"{where} until now"))
        return Reference("env", name)

    def _name(self, server: str, label: str, meaning: object) -> str:
        plain = re.sub(r"[^A-Z0-9]+", "_", label.upper()).strip("_") or "VALUE"
        for name in (plain, re.sub(r"[^A-Z0-9]+", "_", f"{server}_{plain}".upper())):
            # A name cannot begin with a digit.
            name = name if not name[0].isdigit() else f"_{name}"
            if self._meant.setdefault(name, meaning) == meaning:
                return name
        raise OctaveError(f"no name of a variable is left for `{label}` of `{server}`")
