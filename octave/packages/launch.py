"""LaunchSpec: all the runtime needs to know to start one server, and nothing more.

The hand-over from packages to runtime. Frozen; values of secrets never appear in a repr: the
environment is a function that resolves the references anew at each start.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Protocol

from octave.errors import OctaveError, StartFailed
from octave.packages.definitions import Approved


@dataclass(frozen=True, slots=True)
class Policy:
    """How a server is to be looked after; the manifest's words, in seconds and bytes."""

    auto_start: bool = False
    auto_restart: bool = True
    idle_timeout_s: float | None = 300.0
    """None: keep running."""
    start_timeout_s: float = 30.0
    call_timeout_s: float = 300.0
    """Without progress; each progress message starts it anew."""
    call_timeout_max_s: float = 3600.0
    max_message_bytes: int = 16 * 2**20
    health_interval_s: float = 30.0
    """How often a ready server is looked at, and how long it may be silent before it is asked."""
    memory_limit_bytes: int | None = None
    """Of its whole process tree; past it, it gets a fresh process while it is not in use."""
    instance: Literal["auto", "shared", "session"] = "auto"
    """Whether sessions share a process: until the server asks its client something, always, or
    never."""
    replay: bool = False
    """Repeat a call that a crash cut off when the tool says that it may be repeated."""


@dataclass(frozen=True, slots=True)
class ToolFilter:
    """Which tools of a server anybody sees; patterns as of a shell, `*` for any characters."""

    allow: tuple[str, ...] = ()
    """Empty: all."""
    deny: tuple[str, ...] = ()
    """These in no case."""

    @property
    def is_open(self) -> bool:
        """Every tool is there."""
        return not self.allow and not self.deny

    def permits(self, name: str) -> bool:
        """Whether a tool of that name is there at all."""
        if any(fnmatchcase(name, pattern) for pattern in self.deny):
            return False
        return not self.allow or any(fnmatchcase(name, pattern) for pattern in self.allow)


@dataclass(frozen=True, slots=True)
class Approvals:
    """Which definitions of a server's tools were approved, and what is done about others."""

    mode: Literal["warn", "block", "allow"] = "warn"
    """They are reported; neither listed nor callable; or nothing."""
    tools: Approved | None = field(default=None, repr=False)
    """None: nobody has approved any yet. What is seen first counts then, unless they block."""

    @property
    def blocks(self) -> bool:
        """Whether nobody sees or calls what was not approved."""
        return self.mode == "block"


class TokenStore(Protocol):
    """Keeps what a login to one remote server brought, as text that means nothing to the store.

    Blocks for the milliseconds of a file. One lock stands for all processes and all connections:
    whoever renews a login holds it, so that nobody else uses up the same refresh token.
    """

    def read(self) -> str | None:
        """Return what is kept; None when there is no login."""

    def write(self, text: str) -> None:
        """Replace what is kept."""

    def remove(self) -> bool:
        """Forget the login, and tell whether there was one."""

    def try_lock(self) -> bool:
        """Take the lock if it is free; tell whether it is ours now."""

    def unlock(self) -> None:
        """Give the lock back."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a remote server is, and what is shown to it."""

    url: str
    headers: Callable[[], dict[str, str]] = field(repr=False)
    """Sent with each request to it.

    Raises:
        StartFailed: a reference does not resolve.
    """
    tokens: TokenStore | None = field(default=None, repr=False)
    """None: it is never logged in to, as `headers` say who asks."""
    secret_headers: frozenset[str] = frozenset()
    """Names of headers whose values must not be shown anywhere."""


def _as_it_is(error: StartFailed) -> StartFailed:
    """There is nothing more to say."""
    return error


def _nothing() -> None:
    """Nobody has to do anything."""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One server, ready to be started."""

    name: str
    argv: tuple[str, ...] = field(repr=False)
    """Absolute path of the interpreter, its flags, absolute path of the entry file, arguments."""
    cwd: Path
    environment: Callable[[], dict[str, str]] = field(repr=False)
    """The whole environment of the child.

    Raises:
        StartFailed: a reference does not resolve, or a required variable is not set.
    """
    version: str = ""
    digest: str = ""
    """With `version` names what is installed: the key of catalogue entries."""
    title: str = ""
    fingerprint: str = ""
    """Changes with whatever else the manifest says of it, names of variables and references
    included; holds no values."""
    policy: Policy = Policy()
    tools: ToolFilter = ToolFilter()
    approvals: Approvals = Approvals()
    problem: OctaveError | None = None
    """Why it cannot be started at all: nothing is installed for it. `argv` is then empty."""
    secret_variables: frozenset[str] = frozenset()
    """Names of variables whose values must not be shown anywhere."""
    secret_arguments: frozenset[str] = field(default=frozenset(), repr=False)
    """The elements of `argv` of which that is true."""
    endpoint: Endpoint | None = None
    """Of a remote server, which has no process: `argv` is then empty."""
    explain: Callable[[StartFailed], StartFailed] = field(default=_as_it_is, repr=False)
    """Gives the error of a start that failed as somebody who knows the program would say it."""
    before_start: Callable[[], None] = field(default=_nothing, repr=False)
    """Called in the event loop of the runtime, each time before its process is started."""

    def resolved(self) -> "LaunchSpec":
        """Return the spec with what its references lead to by now, for one start.

        Blocks, for as long as a keyring asks a person.

        Raises:
            StartFailed: a reference does not resolve, or a required variable is not set.
        """
        if self.endpoint is not None:
            headers = self.endpoint.headers()
            return replace(self, endpoint=replace(self.endpoint, headers=lambda: dict(headers)))
        environment = self.environment()
        return replace(self, environment=lambda: dict(environment))

    def secrets_of(self, environment: Mapping[str, str]) -> frozenset[str]:
        """Return the values that must not be shown, those of the resolved `environment` too."""
        values = {value for name, value in environment.items() if name in self.secret_variables}
        return self.secret_arguments | values
