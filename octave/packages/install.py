"""The story of installing: choose, resolve, build, start once, write down.

Short sequences of calls into the other modules. What exists on disk is decided by two renames:
the version's folder, then octave.lock. A crash anywhere before leaves the previous state.
"""

import errno
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from octave.errors import NotTrusted, OctaveError, UsageError
from octave.packages import (
    allowed,
    bundles,
    ledger,
    lockfile,
    manifest,
    manifest_edit,
    offered,
    secret_arguments,
    store,
    variables,
    workspaces,
)
from octave.packages.lockfile import Pin
from octave.packages.manifest import Manifest, ServerEntry
from octave.packages.placement import Placed, Site, place, undone_on_error
from octave.packages.plan import Consent, plan_of, require_answerable
from octave.packages.resolve import Choice, answers, described, meant, pin_of
from octave.packages.secrets import Kept, Secrets, stored
from octave.packages.variables import Answers, Given
from octave.settings import Value


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to install."""

    text: str
    """As `meant` reads it, a folder as it is typed, or the path of a bundle."""
    name: str | None = None
    args: tuple[Value, ...] = ()
    args_were_typed: bool = False
    """They stood on a command line, where others can read them."""
    arg_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Those that `args` refer to, for the secret store; `wish_of` takes them out of the text."""
    answers: Answers = field(default_factory=Answers)
    executable: str | None = None
    given: Given | None = None
    """In the place of `answers`: variables and secrets that are sorted already."""
    scripts: tuple[str, ...] = ()
    """Packages whose install scripts may run, besides those the manifest names."""
    builds: tuple[str, ...] = ()
    """Packages that may be built from source, besides those the manifest names."""
    consent: Consent | None = None
    """How somebody agrees to what was not installed before; None: nobody needs to."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the manifest's table, such as `cwd`; references as such, arrays as tuples."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one server."""

    name: str
    status: str
    """`installed`, `present`, `locked`, `removed` or `failed`; of an update `updated`, `current`,
    `available` or `kept`; `rolled-back`."""
    version: str = ""
    checked: bool = False
    tools: int | None = None
    warning: str = ""
    error: OctaveError | None = None
    note: str = ""
    """Why nothing was done, or what may be done next."""
    previous: str = ""
    """The version before, where it is another one now."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What else scripts are told of it."""


def install(request: Request, site: Site) -> Outcome:
    """Install one server and write it into manifest and lockfile.

    A server that only lacks configuration or the network is installed unchecked, with a warning.

    Raises:
        OctaveError: nothing was installed, the previous state is untouched.
    """
    root = site.workspace.home.root
    if root.exists() and not root.is_dir():
        # Else its manifest would be blamed, which is read before anything is made.
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(root))
    request, choice, name = wish_of(request, site)
    for note in choice.entry.notes_for(choice.known) if choice.entry and choice.known else ():
        site.bench.note(note)
    home = site.workspace.home
    before = manifest.load(site.workspace.manifest)
    workspaces.require_trust(site.workspace, before)
    agreed = _agreed(request, choice, name, before, site)
    store.prepare(home)
    # May ask a person: nobody else waits for the answer, and no step is shown over the question.
    given = request.given or variables.sort(
        name, request.answers, choice.known, site.bench.environ, _settled(before, name)
    )
    request = _with_asked(request, choice, name, before)
    with store.locked(home, name, site.bench.progress):
        wanted = manifest.load(site.workspace.manifest)
        workspaces.require_trust(site.workspace, wanted)
        server = as_wanted(wanted, choice, request, name, given)
        secrets = {**given.secrets, **request.arg_secrets}
        with stored(Secrets(home), secrets) as kept, undone_on_error(name, site):
            tell_place(kept, site)
            pin = lockfile.read(site.workspace.lockfile).pins.get(name)
            pin = pin if answers(pin, server) and not choice.names_folder else agreed
            if not answers(pin, server):
                pin = resolved(choice, server, site)
            assert pin is not None
            allowed.require_there(pin, request.scripts, request.builds)
            placed = place(pin, wanted, server, choice.known, site)
            write_down(site, placed, _table(server, request, given))
    site.changed()
    return outcome_of(placed)


def wish_of(request: Request, site: Site) -> tuple[Request, Choice, str]:
    """Return `request` with what a registry adds to it, what it means, and the server's name.

    Raises:
        UsageError: it allows what its kind of package does not do, gives no usable name, or a
            secret was typed.
        ServerNotFound, Ambiguous, RegistryUnreachable, InstallFailed: as `meant`.
    """
    request = replace(request, text=bundles.from_file(request.text, site.bench))
    wanted, pins = (
        manifest.load(site.workspace.manifest),
        lockfile.read(site.workspace.lockfile).pins,
    )
    choice = described(meant(request.text, wanted, pins, site.registry), site.bench)
    if choice.entry is not None and choice.entry.registry:
        # What that registry knows is needed again when it is resolved anew, without a lockfile too.
        request = replace(request, keys={"registry_name": choice.entry.name, **request.keys})
    allowed.require_names(choice, request.text, request.scripts, request.builds)
    name = _name_for(request, choice)
    hidden = secret_arguments.hide(name, request.args, choice.known)
    if request.args_were_typed:
        command = f"octave install {shlex.quote(request.text)}"
        secret_arguments.require_hidden(hidden, command, "--arg ")
    if hidden.names:
        site.bench.note(secret_arguments.told(hidden))
    if said := secret_arguments.passed_on(choice.known):
        site.bench.note(said)
    return replace(request, args=hidden.args, arg_secrets=hidden.secrets), choice, name


def _with_asked(request: Request, choice: Choice, name: str, before: Manifest) -> Request:
    """Return `request` with the secret arguments that a person answers with, where none are."""
    server = before.servers.get(name)
    ask, has_some = request.answers.ask, bool(request.args or (server and server.args))
    if ask is None or has_some:
        return request
    words = secret_arguments.asked(choice.known, ask)
    hidden = secret_arguments.hide(name, words, choice.known)
    return replace(request, args=hidden.args, arg_secrets=hidden.secrets)


def _agreed(
    request: Request, choice: Choice, name: str, before: Manifest, site: Site
) -> Pin | None:
    """Return the pin that somebody agreed to; None where there is nothing to agree to, or where
    only code of it can tell the pin, which runs once they agree.

    What stands in the manifest or in the lockfile was agreed to by whoever wrote it there.

    Raises:
        NotTrusted: they do not agree.
        MissingAnswer, Ambiguous: nobody can be asked.
    """
    consent, server = request.consent, before.servers.get(name)
    locked = lockfile.read(site.workspace.lockfile).pins.get(name)
    is_known = server is not None or (
        locked is not None and f"{locked.kind}:{locked.package}" == choice.source
    )
    if consent is None or is_known:
        return None
    looks_like = require_answerable(choice, consent, f"octave install {request.text}")
    if not (consent.is_shown or consent.can_ask):
        return None
    # What is wrong in the words is told before anybody waits or is asked.
    words = replace(request.answers, ask=request.answers.ask and (lambda _: ""))
    given = request.given or variables.sort(name, words, choice.known, site.bench.environ)
    server = as_wanted(before, choice, request, name, given)
    store.prepare(site.workspace.home)
    with store.locked(site.workspace.home, name, site.bench.progress):
        # Whoever says no must not have had its build code run.
        bench = replace(site.bench, runs_code=not consent.can_ask)
        pin = resolved(choice, server, replace(site, bench=bench))
        allowed.require_there(pin, request.scripts, request.builds)
        staging = store.stage(site.workspace.home, name)
        try:
            plan = plan_of(pin, choice, server, site, staging)
        finally:
            store.discard(staging)
    site.bench.progress("")
    if not consent.agrees(replace(plan, looks_like=looks_like)):
        raise NotTrusted(
            f"`{name}` was not installed, as you said",
            hint=f"octave install {shlex.quote(request.text)} --dry-run",
        )
    return pin if pin.integrity else None


def resolved(choice: Choice, server: ServerEntry, site: Site) -> Pin:
    """Return the pin of what `choice` means, within the manifest's range of `server`.

    The caller holds the lock of its name.

    Raises:
        PackageNotFound, VersionNotFound, Ambiguous, RegistryUnreachable, InstallFailed.
    """
    staging = store.stage(site.workspace.home, server.name)
    try:
        return pin_of(replace(choice, version_range=server.version), server, staging, site.bench)
    finally:
        store.discard(staging)


def _name_for(request: Request, choice: Choice) -> str:
    """Return the name in the manifest; checked here, since locks and folders bear it."""
    name = choice.name if request.name is None else request.name
    if not manifest.is_server_name(name):
        if request.name is None:
            raise UsageError(
                f"`{request.text}` gives no usable name", hint="choose one with `--as NAME`"
            )
        raise UsageError(
            f"`{name}` cannot name a server",
            hint="use up to 40 lower-case letters, digits and dashes",
        )
    return name


def _settled(wanted: Manifest, name: str) -> set[str]:
    """Return the variables that the manifest gives to the server already."""
    server = wanted.servers.get(name)
    return {*server.env, *server.pass_env} if server else set()


def as_wanted(
    wanted: Manifest, choice: Choice, request: Request, name: str, given: Given
) -> ServerEntry:
    """Return the manifest's entry as it will stand after this install.

    Raises:
        UsageError: the name is that of another package.
    """
    server = wanted.servers.get(name)
    if server is None:
        server = ServerEntry(name=name, package=choice.source)
    elif server.package != choice.source:
        raise UsageError(
            f"`{name}` already names `{server.package or 'another server'}` in `octave.toml`",
            hint=f"octave install {request.text} --as OTHER-NAME",
        )
    return replace(
        server,
        version=choice.version_range if choice.version_range != "*" else server.version,
        args=request.args or server.args,
        env={**server.env, **given.values},
        executable=request.executable or server.executable,
        allow_scripts=tuple(dict.fromkeys((*server.allow_scripts, *request.scripts))),
        allow_build=tuple(dict.fromkeys((*server.allow_build, *request.builds))),
        **{key: value for key, value in request.keys.items() if key in _FIELDS},
    )


_FIELDS = frozenset(each.name for each in fields(ServerEntry))


def _table(server: ServerEntry, request: Request, given: Given) -> dict[str, object]:
    """Return the keys of the manifest's table that this install sets."""
    table: dict[str, object] = {"package": server.package}
    if server.version != "*":
        table["version"] = server.version
    if request.args:
        table["args"] = list(request.args)
    if request.executable:
        table["bin"] = request.executable
    if given.values:
        table["env"] = dict(server.env)
    if request.scripts:
        table["allow_scripts"] = list(server.allow_scripts)
    if request.builds:
        table["allow_build"] = list(server.allow_build)
    return table | dict(request.keys)


def write_down(site: Site, placed: Placed, table: Mapping[str, object] | None = None) -> None:
    """Write what was placed into the lockfile, and `table` into the manifest where there is one."""
    workspace, pin = site.workspace, placed.pin
    with ledger.changing(workspace):
        if table is not None:
            # Whoever changed it meanwhile does not become trusted by this.
            workspaces.require_trust(workspace, manifest.load(workspace.manifest))
            manifest_edit.add_server(workspace.manifest, pin.name, table)
        pins = lockfile.read(workspace.lockfile).pins
        if table is not None or pins.get(pin.name) != pin:
            ledger.write_pins(workspace, {**pins, pin.name: pin})
        keep_offered(site, placed)
        if table is not None:
            workspaces.trust(workspace, manifest.load(workspace.manifest))


def keep_offered(site: Site, placed: Placed) -> None:
    """Keep what the server said it offers when it was started once, where the runtime looks."""
    if placed.offered is not None:
        site.workspace.prepare()
        path = site.workspace.catalogue(placed.pin.name)
        offered.save(path, placed.offered, placed.pin.version, placed.pin.graph_digest)


def tell_place(kept: Sequence[Kept], site: Site) -> None:
    """Say why secrets went to a file, where a keyring would have been the better place."""
    for reason in dict.fromkeys(each.reason for each in kept if each.reason):
        path = site.workspace.home.secrets
        site.bench.note(f"secrets are kept in `{path}`, readable by you alone: {reason}")


def outcome_of(placed: Placed) -> Outcome:
    """Return what is told of a server that lies on disk now."""
    record = placed.record
    warning = (
        "" if record.checked else f"`{record.name}` was not checked: {record.unchecked_reason}"
    )
    return Outcome(
        record.name, placed.status, record.version, record.checked, record.tools, warning
    )
