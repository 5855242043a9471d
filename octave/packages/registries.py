"""All registries of a workspace in their order: the bundled one first, then those configured.

The bundled registry always wins for a name that it has. A registry that cannot be asked ends the
search: otherwise whoever blocks it would decide that a later one answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from octave.errors import Ambiguous, NotFound, ServerNotFound, did_you_mean
from octave.home import Home, Workspace
from octave.packages import manifest, workspaces
from octave.packages.entries import Entry
from octave.packages.foreign_entries import NAME
from octave.packages.info import BUNDLED
from octave.packages.mcp_registry import Access, McpRegistry
from octave.packages.registry import Registry, bundled_folder
from octave.packages.resolve import short_name
from octave.packages.spelling import looks_like

OFFICIAL = "official"
OFFICIAL_URL = "https://registry.modelcontextprotocol.io"
"""Asked only when it is named or configured: what Octave brings along works without it."""


class Registries:
    """Looks names up in the bundled registry, then in `others`, which are asked late."""

    def __init__(
        self, bundled: Registry, others: Callable[[], Sequence[McpRegistry]] = tuple
    ) -> None:
        self.bundled = bundled
        self._others = others

    def get(self, name: str) -> Entry:
        """Return the entry that `name` means: a short name, an alias, or a full `OWNER/NAME`.

        A short name that the bundled registry does not know is the last part of a full one; the
        first registry that has such servers decides.

        Raises:
            ServerNotFound: none has it.
            Ambiguous: several servers of one registry could be meant, or it looks like another.
            RegistryUnreachable: a registry that comes first cannot be asked.
        """
        if NAME.fullmatch(name):
            return self._by_full_name(name)
        try:
            return self.bundled.get(name)
        except ServerNotFound as error:
            found = self._by_last_part(name) if NAME.fullmatch(f"x/{name}") else None
            if found is None:
                raise error
        return self._with_own_name(found)

    def find_package(self, kind: str, identifier: str) -> Entry | None:
        """Return the entry of the bundled registry that knows the package."""
        return self.bundled.find_package(kind, identifier)

    def _by_full_name(self, name: str) -> Entry:
        entries = self.bundled.entries()
        for entry in entries:
            if entry.name == name:
                return entry
        others = self._others()
        for registry in others:
            found = registry.get(name)
            if found is not None:
                return self._with_own_name(found)
        near = did_you_mean(name, [entry.name for entry in entries])
        asked = ", ".join(f"`{one}`" for one in (BUNDLED, *(other.name for other in others)))
        more = f"`--registry {OFFICIAL}` asks the official registry"
        raise ServerNotFound(
            f"no server is called `{name}` in the registries {asked}"
            if others
            else f"the registry has no server `{name}`",
            hint=near or ("octave search" if others else more),
        )

    def _by_last_part(self, name: str) -> Entry | None:
        for registry in self._others():
            found = registry.called(name)
            if len(found) > 1:
                candidates = sorted(entry.name for entry in found)
                raise Ambiguous(
                    f"`{name}` could be {' or '.join(f'`{one}`' for one in candidates)}",
                    hint=f"give the full name, such as `{candidates[0]}`",
                    details={"candidates": candidates, "registry": registry.name},
                )
            if found:
                self._refuse_lookalike(name, found[0])
                return found[0]
        return None

    def _refuse_lookalike(self, name: str, found: Entry) -> None:
        near = next((known for known in self._known_names() if looks_like(name, known)), None)
        if near is not None:
            raise Ambiguous(
                f"`{name}` looks like `{near}`; the registry `{found.registry}` has another server "
                f"of that name, `{found.name}`",
                hint=f"give the name `{near}`, or the full name `{found.name}`",
                details={"candidates": [near, found.name], "registry": found.registry},
            )

    def _with_own_name(self, entry: Entry) -> Entry:
        """Return `entry` with a name for the manifest that is none of the bundled ones."""
        owner, _, last = entry.name.partition("/")
        plain = short_name(last)
        if plain in self._known_names():
            plain = short_name(f"{owner.rpartition('.')[2]}-{plain}")
        return replace(entry, short_name=plain)

    def _known_names(self) -> list[str]:
        return [*self.bundled.names(), *self.bundled.aliases()]


def configured(workspace: Workspace, warn: Callable[[str], None]) -> dict[str, str]:
    """Return the registries that the manifest names, name -> address, in its order.

    None of them for a project that is not trusted: to ask a registry tells it what is wanted.

    Raises:
        ManifestError: it cannot be read.
    """
    wanted = manifest.load(workspace.manifest)
    if wanted.registries and not workspaces.trusted(workspace, wanted):
        warn(
            f"the registries of `{workspace.manifest}` are not asked until you trust it: "
            "`octave trust`"
        )
        return {}
    return dict(wanted.registries)


def named(known: dict[str, str], name: str) -> tuple[str, str]:
    """Return name and address of a registry that is configured, or the official one.

    Raises:
        NotFound: there is none of that name.
    """
    if name == OFFICIAL:
        return name, known.get(name, OFFICIAL_URL)
    if name in known:
        return name, known[name]
    raise NotFound(
        f"there is no registry `{name}`",
        hint=did_you_mean(name, [*known, OFFICIAL, BUNDLED]) or f"octave registry add {name} URL",
    )


def of_workspace(
    workspace: Workspace,
    *,
    also: str | None = None,
    offline: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
) -> Registries:
    """Return the registries of `workspace`; `also` names one to be asked besides, as `named`."""
    made: list[McpRegistry] = []

    def others() -> list[McpRegistry]:
        # What one was told stays with it: several names of one command ask it once.
        if not made:
            made.extend(opened(workspace, also=also, offline=offline, warn=warn, progress=progress))
        return made

    return Registries(Registry(bundled_folder()), others)


def opened(
    workspace: Workspace,
    *,
    only: str | None = None,
    also: str | None = None,
    offline: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[McpRegistry]:
    """Return the registries to ask behind the bundled one: those configured, or `only` one.

    Raises:
        ManifestError: the manifest cannot be read.
        NotFound: there is none of the name given.
    """
    known = configured(workspace, warn)
    extra = only or also
    if extra is not None and extra != BUNDLED:
        name, url = named(known, extra)
        known = {name: url} if only else {**known, name: url}
    access = Access(cache_folder(workspace.home), warn, progress, offline)
    return [McpRegistry(name, url, access) for name, url in known.items()]


def cache_folder(home: Home) -> Path:
    """Return where the answers of registries are kept."""
    return home.cache / "registry"
