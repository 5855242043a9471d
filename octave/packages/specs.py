"""Build the LaunchSpecs of a workspace from its manifest and the records of what is installed.

Reads no lockfile and resolves nothing: what is missing becomes a spec with a `problem`.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from octave.errors import UNWRITABLE, OctaveError, StartFailed, from_os_error
from octave.home import NotPrivate, Workspace, private_folder
from octave.packages import approvals, manifest, node_flags, store, variables, workspaces
from octave.packages.launch import Endpoint, LaunchSpec, Policy, ToolFilter
from octave.packages.launch_place import Place
from octave.packages.manifest import Manifest, Reference, ServerEntry, Value
from octave.packages.registry import PackageChoice, Registry, bundled_folder
from octave.packages.secrets import Secrets, resolve
from octave.packages.store import Record
from octave.packages.tokens import Tokens

PASSED = frozenset(
    (
        "HOME",
        "USER",
        "LOGNAME",
        "PATH",
        "SHELL",
        "LANG",
        "TZ",
        "TMPDIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "NODE_EXTRA_CA_CERTS",
    )
)
PASSED_PREFIXES = ("LC_", "XDG_", "SSL_CERT_")
"""What every server gets of the runtime's environment; all else it must be given by name."""

_SECRET_HEADERS = re.compile("auth|cookie|credential|key|password|secret|token", re.IGNORECASE)
"""Names whose values say who asks, wherever they were written."""


def passed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of `environ` every server gets by its name."""
    return {name: environ[name] for name in PASSED if name in environ}


def launch_specs(workspace: Workspace, environ: Mapping[str, str]) -> list[LaunchSpec]:
    """Return a spec for each enabled server of the manifest, in its order.

    Raises:
        ManifestError: it cannot be read.
        NotTrusted: it lies outside the home and was not trusted as it is now.
    """
    wanted = manifest.load(workspace.manifest)
    workspaces.require_trust(workspace, wanted)
    installed = workspaces.installed(workspace)
    locked = approvals.locked(workspace)
    specs = (
        _spec(workspace, wanted, server, installed.get(server.name), environ)
        for server in wanted.servers.values()
        if server.enabled
    )
    mode = wanted.settings.definitions
    return [
        replace(spec, approvals=approvals.of(workspace, spec, mode, locked.get(spec.name)))
        for spec in specs
    ]


def spec_of_record(
    workspace: Workspace,
    wanted: Manifest,
    server: ServerEntry,
    record: Record,
    folder: Path,
    environ: Mapping[str, str],
) -> LaunchSpec:
    """Return the spec that starts what lies in `folder` as `record` says, for `server`."""
    resolver = _Resolver(workspace, environ)
    place = Place(workspace, server, record, folder)
    return LaunchSpec(
        name=server.name,
        argv=(
            *place.command(),
            *place.fixed(lambda name: resolver.given(name, server)),
            *(resolver.value(value) for value in server.args),
        ),
        cwd=_cwd(workspace, server),
        environment=_with_files(
            server.name,
            store.absolute(record.command, folder, workspace.home),
            _environment(
                workspace,
                server,
                place,
                environ,
                node_flags.variables(workspace.home, record, folder, server.node_flags),
            ),
        ),
        version=record.version,
        digest=record.digest,
        title=record.title or server.name,
        fingerprint=_fingerprint(server),
        policy=policy_of(wanted, server),
        tools=ToolFilter(server.tools_allow, server.tools_deny),
        secret_variables=_secret_variables(server, _known(server, record)),
        secret_arguments=_secret_arguments(server.args, resolver),
        explain=place.explain,
    )


def _with_files(
    name: str, files: Iterable[str], environment: Callable[[], dict[str, str]]
) -> Callable[[], dict[str, str]]:
    """Return `environment`, which says so when one of `files` is gone by then.

    Interpreters are others' to update and remove.
    """

    def made() -> dict[str, str]:
        given = environment()
        for file in files:
            if not Path(file).exists():
                raise StartFailed(
                    f"`{name}` cannot be started: `{file}` does not exist any more",
                    hint="octave install",
                    details={"phase": "start", "permanent": True, "file": file},
                )
        return given

    return made


def spec_of_own(
    workspace: Workspace, wanted: Manifest, server: ServerEntry, environ: Mapping[str, str]
) -> LaunchSpec:
    """Return the spec of a server that has a command of its own, or an address.

    Raises:
        StartFailed: a reference in its command does not resolve.
    """
    if server.url is not None:
        return _remote(workspace, wanted, server, environ)
    return _own_command(workspace, wanted, server, environ)


def policy_of(wanted: Manifest, server: ServerEntry) -> Policy:
    """Return how the manifest wants `server` to be looked after."""
    settings = wanted.settings
    idle_timeout_s: float | None
    if server.idle_timeout_s == "runtime":
        idle_timeout_s = None if server.auto_start else settings.idle_timeout_s
    else:
        idle_timeout_s = server.idle_timeout_s
    return Policy(
        auto_start=server.auto_start,
        auto_restart=server.auto_restart,
        idle_timeout_s=idle_timeout_s,
        start_timeout_s=settings.start_timeout_s,
        call_timeout_s=settings.call_timeout_s,
        call_timeout_max_s=settings.call_timeout_max_s,
        max_message_bytes=settings.max_message_bytes,
        health_interval_s=settings.health_interval_s,
        memory_limit_bytes=server.memory_limit_bytes,
        instance=server.instance,
        replay=server.replay,
    )


def missing_variables(record: Record, environment: Mapping[str, str]) -> list[str]:
    """Return what of the variables the server needs is not set; a choice as `A or B`."""
    missing = [name for name in record.required_env if not environment.get(name)]
    groups = record.env_one_of
    if groups and not any(all(environment.get(name) for name in group) for group in groups):
        missing.append(" or ".join(" with ".join(group) for group in groups))
    return missing


def _spec(
    workspace: Workspace,
    wanted: Manifest,
    server: ServerEntry,
    folder: str | None,
    environ: Mapping[str, str],
) -> LaunchSpec:
    try:
        if server.package is None:
            return spec_of_own(workspace, wanted, server, environ)
        if folder is None:
            raise StartFailed(
                f"`{server.name}` is in `{workspace.manifest.name}` but not installed",
                hint="octave install",
            )
        record = store.require(workspace.home, server.name, folder)
        place = workspace.home.servers / server.name / folder
        return spec_of_record(workspace, wanted, server, record, place, environ)
    except OctaveError as error:
        problem = error
    except OSError as error:
        told = from_os_error(error)
        if told is None:
            raise
        problem = told
    return LaunchSpec(
        name=server.name,
        argv=(),
        cwd=workspace.manifest.parent,
        environment=dict,
        title=server.name,
        policy=policy_of(wanted, server),
        tools=ToolFilter(server.tools_allow, server.tools_deny),
        problem=problem,
    )


def _own_command(
    workspace: Workspace, wanted: Manifest, server: ServerEntry, environ: Mapping[str, str]
) -> LaunchSpec:
    resolver = _Resolver(workspace, environ)
    words = tuple(resolver.value(value) for value in server.command or ())
    return LaunchSpec(
        name=server.name,
        argv=(*words, *(resolver.value(value) for value in server.args)),
        cwd=_cwd(workspace, server),
        environment=_environment(workspace, server, None, environ, {}),
        digest=_fingerprint(server),
        title=server.name,
        policy=policy_of(wanted, server),
        tools=ToolFilter(server.tools_allow, server.tools_deny),
        secret_variables=_secret_variables(server, None),
        secret_arguments=_secret_arguments((*(server.command or ()), *server.args), resolver),
    )


def _remote(
    workspace: Workspace, wanted: Manifest, server: ServerEntry, environ: Mapping[str, str]
) -> LaunchSpec:
    url = server.url or ""

    def headers() -> dict[str, str]:
        resolver = _Resolver(workspace, environ)
        return {name: resolver.header(name, value) for name, value in server.headers.items()}

    says_who_asks = any(name.lower() == "authorization" for name in server.headers)
    secret_headers = {
        name
        for name, value in server.headers.items()
        if isinstance(value, Reference) or _SECRET_HEADERS.search(name)
    }
    return LaunchSpec(
        name=server.name,
        argv=(),
        cwd=workspace.manifest.parent,
        environment=dict,
        digest="sha256:" + hashlib.sha256(url.encode()).hexdigest(),
        title=server.name,
        fingerprint=_fingerprint(server),
        policy=policy_of(wanted, server),
        tools=ToolFilter(server.tools_allow, server.tools_deny),
        endpoint=Endpoint(
            url=url,
            headers=headers,
            tokens=None if says_who_asks else Tokens(workspace.home, server.name, url),
            secret_headers=frozenset(secret_headers),
        ),
    )


def _fingerprint(server: ServerEntry) -> str:
    # A pin is no reason to restart it.
    free = replace(server, pinned=False)
    return "sha256:" + hashlib.sha256(repr(free).encode()).hexdigest()


class _Resolver:
    """Resolve the manifest's values for one workspace."""

    def __init__(self, workspace: Workspace, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._secrets = Secrets(workspace.home)
        self._base = workspace.manifest.parent

    def value(self, value: Value) -> str:
        return resolve(value, self._environ, self._secrets, self._base)

    def given(self, name: str, server: ServerEntry) -> str | None:
        """Return the value of a variable that `server` is given; None when it is not."""
        if name in server.env:
            return self.value(server.env[name])
        # A bundle chooses these names: of all else here it is told nothing.
        is_passed = name in PASSED or name in server.pass_env
        return self._environ.get(name) if is_passed else None

    def header(self, name: str, value: Value) -> str:
        text = self.value(value).strip()
        if not (text.isascii() and text.isprintable()):
            # What a reference leads to, so that it is not shown.
            raise StartFailed(f"the value for the header `{name}` is not printable ASCII")
        return text


def _secret_variables(server: ServerEntry, known: PackageChoice | None) -> frozenset[str]:
    names = {name for name, value in server.env.items() if _is_kept(value)}
    given = {*server.env, *server.pass_env}
    return frozenset(names | {name for name in given if variables.is_secret(name, known)})


def _secret_arguments(words: Iterable[Value], resolver: _Resolver) -> frozenset[str]:
    whole = {resolver.value(word) for word in words if _is_kept(word)}
    # Of `--key=VALUE` the server repeats the value alone.
    values = {word.partition("=")[2] for word in whole if word.startswith("-")}
    return frozenset(whole | values - {""})


def _is_kept(value: Value) -> bool:
    """Whether it lies in the secret store, or in a file of its own."""
    return isinstance(value, Reference) and value.kind != "env"


def _known(server: ServerEntry, record: Record) -> PackageChoice | None:
    """Return what the registry's entry of the same name says about the package.

    All other entries would have to be read to find one under another name; then names of variables
    have to speak for themselves.
    """
    try:
        entry = Registry(bundled_folder()).get(server.name)
    except OctaveError:
        return None
    return entry.package(record.kind, record.package)


def _cwd(workspace: Workspace, server: ServerEntry) -> Path:
    if server.cwd is not None:
        folder = os.path.expanduser(server.cwd)  # noqa: PTH111 - an unknown ~user stays as it is
        return workspace.manifest.parent / folder
    return _data(workspace, server.name) or workspace.manifest.parent


def _data(workspace: Workspace, name: str) -> Path | None:
    """Return the server's data folder, made; None in a checkout that a CI mounts read-only."""
    try:
        return private_folder(workspace.data(name))
    except OSError as error:
        is_mounted_so = error.errno in UNWRITABLE and not isinstance(error, NotPrivate)
        if workspace.is_home or not is_mounted_so:
            raise
    return None


def _environment(
    workspace: Workspace,
    server: ServerEntry,
    place: Place | None,
    environ: Mapping[str, str],
    defaults: Mapping[str, str],
) -> Callable[[], dict[str, str]]:
    def environment() -> dict[str, str]:
        _data(workspace, server.name)
        resolver = _Resolver(workspace, environ)
        found = dict(defaults)
        found |= {
            name: value
            for name, value in environ.items()
            if name in PASSED or name.startswith(PASSED_PREFIXES) or name in server.pass_env
        }
        given = {name: resolver.value(value) for name, value in server.env.items()}
        if place is not None:
            found |= place.tool_variables(environ)
            found |= place.defaults({**found, **given}.get)
        found |= given
        missing = missing_variables(place.record, found) if place is not None else []
        if missing:
            first = [word for each in missing for word in each.partition(" or ")[0].split(" with ")]
            raise StartFailed(
                f"`{server.name}` needs {', '.join(f'`{name}`' for name in missing)}",
                hint=f"octave install {server.name} -e {' -e '.join(first)}",
                details={"missing": missing},
            )
        return found

    return environment
