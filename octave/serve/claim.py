"""What a runtime takes of the machine for itself: lock, port, socket path, token, runtime.json.

The lock is an flock, free again however its holder ends; everything else that a dead runtime left
behind is stale once the lock is held. Nothing here knows what is served.
"""

import contextlib
import errno
import json
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

import filelock
import psutil

from octave.errors import Locked, OctaveError, PortTaken, UsageError
from octave.home import Workspace, atomic_write
from octave.packages import state_file
from octave.packages.secrets import Secrets, resolve
from octave.settings import Settings

HOME_PORT = 3737

TOKEN_BYTES = 32
"""256 bit cannot be guessed."""

FIXED_TOKEN_CHARS = 32
"""A fixed token shorter than this could be guessed."""

BACKLOG = 128

CHOICES_FORMAT = 1

LOCK_S = 0.1
"""Whoever only looks whether the lock is held has it for microseconds."""
LOCK_POLL_S = 0.01


def take_lock(workspace: Workspace) -> filelock.BaseFileLock:
    """Return the held lock of the workspace's runtime.

    Raises:
        Locked: another runtime holds it; names its pid and address.
    """
    lock = filelock.FileLock(workspace.runtime_lock, timeout=LOCK_S, mode=0o600)
    try:
        lock.acquire(poll_interval=LOCK_POLL_S)
    except filelock.Timeout as error:
        raise taken(workspace) from error
    return lock


def taken(workspace: Workspace) -> Locked:
    """Return the error that names the runtime this workspace has already."""
    first = workspace.runtime()
    facts = [f"pid {first['pid']}"] if "pid" in first else []
    facts += [f"on {first['url']}"] if first.get("url") else []
    return Locked(
        f"a runtime for `{workspace.manifest}` runs already"
        + (f" ({' '.join(facts)})" if facts else ""),
        hint="`octave status` shows it, `octave shutdown` stops it",
        details=first,
    )


def sweep(workspace: Workspace) -> None:
    """Remove what a killed runtime left behind; only for the holder of the lock."""
    give_back(workspace, workspace.socket())


def _remove_socket(workspace: Workspace, path: Path) -> None:
    # A short folder was made for this one socket.
    path.unlink(missing_ok=True)
    if path.parent != workspace.run:
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def give_back(workspace: Workspace, path: Path) -> None:
    """Remove the socket at `path`, the token and runtime.json."""
    _remove_socket(workspace, path)
    workspace.runtime_file.unlink(missing_ok=True)
    workspace.token.unlink(missing_ok=True)


def default_port(workspace: Workspace, settings: Settings) -> int:
    """Return the port to listen on; 0 is any."""
    if settings.port is not None:
        return settings.port
    return HOME_PORT if workspace.is_home else 0


def bind_port(host: str, port: int) -> socket.socket:
    """Return a TCP socket that listens on `host`; it need not be served at once.

    Raises:
        PortTaken: another program has the port; names it where that can be told.
        OctaveError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Linux lets two sockets bind one port with SO_REUSEADDR as long as neither listens.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise OctaveError(
                f"cannot listen on `{host}` port {port}: {error.strerror}",
                hint="choose another with `--port`",
            ) from error
        raise PortTaken(
            f"port {port} is taken{_owner_of(port)}",
            hint=f"end that program, or choose another port: `octave serve --port {port + 1}`",
        ) from error
    return listener


def _owner_of(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            is_it = connection.laddr and connection.laddr.port == port
            if is_it and connection.status == psutil.CONN_LISTEN and connection.pid is not None:
                return f" by `{psutil.Process(connection.pid).name()}` (pid {connection.pid})"
    except (psutil.Error, OSError):
        return ""
    return ""


def check_host(host: str, settings: Settings, *, allow_remote: bool) -> None:
    """Refuse to be reached from other machines by accident.

    Raises:
        UsageError: `host` is not loopback and one of the three consents is missing.
    """
    if host in {"127.0.0.1", "localhost", "::1"}:
        return
    if not (allow_remote and settings.token is not None and settings.allowed_hosts):
        raise UsageError(
            f"`{host}` can be reached from other machines",
            hint="that needs `--allow-remote`, and `token` and `allowed_hosts` in octave.toml",
        )


def make_token(workspace: Workspace, settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the token of the HTTP API: the fixed one, else a new one.

    Raises:
        OctaveError: the reference does not resolve, or the token could be guessed.
    """
    if settings.token is None:
        return secrets.token_urlsafe(TOKEN_BYTES)
    base = workspace.manifest.parent
    token = resolve(settings.token, environ, Secrets(workspace.home), base)
    if len(token) < FIXED_TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise UsageError(
            f"`token` in `{workspace.manifest.name}` needs {FIXED_TOKEN_CHARS} ASCII characters",
            hint="`openssl rand -hex 32` makes one",
        )
    return token


def write_facts(workspace: Workspace, facts: Mapping[str, object], token: str | None) -> None:
    """Say in the workspace how the runtime is reached; the token first, then runtime.json."""
    if token is not None:
        atomic_write(workspace.token, token.encode())
    atomic_write(workspace.runtime_file, json.dumps(facts).encode() + b"\n")


def read_choices(workspace: Workspace) -> frozenset[str]:
    """Return the servers a person stopped; none when the file is missing or damaged.

    Raises:
        StorageFailed: a newer Octave wrote it.
    """
    found = state_file.read(workspace.choices, CHOICES_FORMAT).get("stopped")
    names = found if isinstance(found, list) else ()
    return frozenset(name for name in names if isinstance(name, str))


def write_choices(workspace: Workspace, stopped: frozenset[str]) -> None:
    """Keep which servers a person stopped, for the next runtime."""
    # Losing it costs one unwanted start; failing here would cost the `stop` itself.
    with contextlib.suppress(OSError):
        content = {"format": CHOICES_FORMAT, "stopped": sorted(stopped)}
        atomic_write(workspace.choices, json.dumps(content).encode() + b"\n")
