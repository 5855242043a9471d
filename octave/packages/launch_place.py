"""Where an installed version lies, and what of its record becomes words and variables there."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from octave.errors import StartFailed
from octave.home import Workspace, private_folder
from octave.packages import containers, node_flags, store, templates
from octave.packages.manifest import ServerEntry
from octave.packages.store import Record
from octave.packages.templates import Lookup


@dataclass(frozen=True, slots=True)
class Place:
    """One installed version, for one server of one workspace."""

    workspace: Workspace
    server: ServerEntry
    record: Record
    folder: Path

    def command(self) -> tuple[str, ...]:
        """Return all words up to the server's own arguments.

        Raises:
            StartFailed: a variable would change the tool that runs a container.
        """
        words = store.absolute(self.record.command, self.folder, self.workspace.home)
        if self.record.kind == "oci":
            return containers.argv(self._run(words[0]))
        interpreter, *entry = words
        flags = node_flags.arguments(self.record, self.server.node_flags)
        return (interpreter, *flags, *entry)

    def shown(self) -> tuple[str, ...]:
        """Return `command` as a person would type it; raises as that."""
        if self.record.kind != "oci":
            return self.command()
        words = store.absolute(self.record.command, self.folder, self.workspace.home)
        return containers.command(self._run(words[0]))

    def explain(self, error: StartFailed) -> StartFailed:
        """Return the `error` of a start as this kind of package has it."""
        record = self.record
        if record.kind != "oci":
            return error
        image = containers.reference(record.package, record.integrity)
        return containers.explained(error, self.server.name, image)

    def told(self, passed: Mapping[str, str]) -> tuple[str, ...]:
        """Return `shown` and the arguments of the record, to be read by anybody.

        What the server is given by octave.toml stands as `$NAME`, for it may be a secret; `passed`
        is what every server gets.

        Raises:
            StartFailed: as `command`.
        """

        def lookup(name: str) -> str | None:
            is_given = name in self.server.env or name in self.server.pass_env
            return f"${name}" if is_given else passed.get(name)

        return (*self.shown(), *self.fixed(lookup))

    def fixed(self, lookup: Lookup) -> tuple[str, ...]:
        """Return the arguments of the record; `lookup` gives what a bundle takes from variables."""
        words = tuple(map(self._filled, self.record.args))
        if self.record.kind != "mcpb":
            return words
        defaults = self.defaults(lookup)
        return templates.filled_all(words, lambda name: lookup(name) or defaults.get(name))

    def defaults(self, lookup: Lookup) -> dict[str, str]:
        """Return the variables of the record; one whose parts nobody has given is left out."""
        found = {name: self._filled(value) for name, value in self.record.env.items()}
        if self.record.kind != "mcpb":
            return found
        known = {name: value for name, value in found.items() if not templates.names(value)}
        filled = {
            name: templates.filled(value, lambda key: lookup(key) or known.get(key))
            for name, value in found.items()
        }
        return {name: value for name, value in filled.items() if value is not None}

    def tool_variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return what docker or podman are set by, where the server is run by them."""
        if self.record.kind != "oci":
            return {}
        return {name: environ[name] for name in containers.only_names(environ)}

    def _filled(self, word: str) -> str:
        word = word.replace("{data}", str(self.workspace.data(self.server.name)))
        return word.replace("{folder}", str(self.folder)) if self.record.kind == "mcpb" else word

    def _run(self, tool: str) -> containers.Run:
        server, record = self.server, self.record
        return containers.Run(
            server=server.name,
            tool=tool,
            image=containers.reference(record.package, record.integrity),
            variables=(*record.env, *server.env, *server.pass_env),
            mounts=tuple(map(self._mount, server.mounts)),
        )

    def _mount(self, text: str) -> str:
        source, _, rest = text.partition(":")
        if "{data}" in source:
            private_folder(self.workspace.data(self.server.name))
        path = os.path.expanduser(self._filled(source))  # noqa: PTH111 - an unknown ~user stays as it is
        return f"{self.workspace.manifest.parent / path}:{rest}"
