"""Start a server once before it counts as installed, and judge a start that failed.

Of real servers about half exit at once with code 1 when a variable is missing; others want an
argument or the network first. Such a server is installed all the same, unchecked. One that
crashes installs nothing. The tests' table of real messages is the definition.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from octave.errors import StartFailed
from octave.packages import secret_arguments
from octave.packages.info import install_command, usage
from octave.packages.launch import LaunchSpec
from octave.packages.manifest import Reference, ServerEntry
from octave.packages.offered import Offered
from octave.packages.registry import PackageChoice
from octave.packages.store import Record

_BROKEN = re.compile(
    r"AttributeError|ImportError|ModuleNotFoundError|SyntaxError|NameError|TypeError"
    r"|Cannot find module|ERR_MODULE_NOT_FOUND|ERR_DLOPEN_FAILED|ERR_REQUIRE_ESM"
    r"|is not a function|symbol lookup error|cannot open shared object"
)
_ERROR = re.compile(r"\W*(?:error|fatal|usage)\b", re.IGNORECASE)
_NETWORK = re.compile(
    r"ENOTFOUND|ECONNREFUSED|ECONNRESET|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|getaddrinfo"
    r"|fetch failed|Name or service not known|Temporary failure in name resolution|no such host"
    r"|Connection refused|Network is unreachable|ConnectError|ConnectionError|dial tcp",
    re.IGNORECASE,
)
_WANTS = re.compile(
    r"usage:|missing|required|not set|not provided|not configured|not specified|must (?:be )?set"
    r"|please (?:set|provide|specify)|provide (?:a|an|the|at least)|specify|environment variable"
    r"|credential|api[ _-]?key|access[ _-]?token|unauthori[sz]ed|kubeconfig|no configuration"
    r"|invalid configuration|config(?:uration)? file|(?-i:[A-Z][A-Z0-9]+_[A-Z0-9_]+)",
    re.IGNORECASE,
)


_SILENT_HINT = "check that the package is a server; its page says how it is started"


def is_broken(error: StartFailed) -> bool:
    """Whether the server's last words are those of a program that cannot work."""
    return any(_BROKEN.search(line) for line in _last_words(error))


def wanted_by(error: StartFailed) -> str | None:
    """Return what the server asked for before it ended: its own words, or None.

    Reads `error.details`: exitCode and stderrTail (lines). Only a process that ended by itself
    can have asked for something; one that hung or was killed by a signal has not.
    """
    if not isinstance(error.details.get("exitCode"), int) or error.details.get("signal"):
        return None
    lines = _last_words(error)
    # A usage text names many things; the line that says "error" names the one that is missing.
    lines.sort(key=lambda line: _ERROR.match(line) is not None)
    for pattern in (_NETWORK, _WANTS):
        for line in reversed(lines):
            if pattern.search(line):
                return line[:300]
    return None


def _last_words(error: StartFailed) -> list[str]:
    lines = [str(line).strip() for line in error.details.get("stderrTail") or []]
    return [line for line in lines if line]


def start_once(
    record: Record,
    server: ServerEntry,
    spec: LaunchSpec,
    check: Callable[[LaunchSpec], Offered],
    lacking: str | None,
) -> tuple[Record, Offered | None]:
    """Start `spec` of `server` once; return the record with what came of it.

    `lacking` is what the server is known to want and may not have here, as `lacking` says it.

    Raises:
        StartFailed: it is broken, not merely unconfigured.
    """
    try:
        environment = spec.environment()
    except StartFailed as error:
        return unchecked(record, error), None
    try:
        offer = check(spec)
    except StartFailed as failure:
        told = _without(secret_values(server, environment), failure)
        said = wanted_by(told)
        reason = lacking or (f"it says: {said}" if said else None)
        if reason is None or is_broken(told):
            raise StartFailed(
                f"`{record.name}` {record.version} was not installed: {told.message}",
                hint=told.hint or (None if _last_words(told) else _SILENT_HINT),
                details=told.details,
            ) from failure
        return replace(record, unchecked_reason=reason), None
    return replace(record, checked=True, unchecked_reason="", tools=len(offer.tools)), offer


def unchecked(record: Record, error: StartFailed) -> Record:
    """Return the record of a server that was not started for want of something."""
    return replace(record, unchecked_reason=with_command(error))


def with_command(error: StartFailed) -> str:
    """Return what is wrong and the command that mends it, where there is one, as one sentence."""
    hint = f" (`{error.hint}`)" if error.hint and error.hint.startswith("octave ") else ""
    return error.message + hint


def secret_values(server: ServerEntry, environment: Mapping[str, str]) -> list[str]:
    """Return the values of `environment` that the manifest only refers to, the longest first."""
    names = (name for name, value in server.env.items() if isinstance(value, Reference))
    values = {environment.get(name, "") for name in names}
    return sorted((v for v in values if len(v) >= _SHORTEST_SECRET), key=len, reverse=True)


_SHORTEST_SECRET = 4
"""What is shorter guards nothing, and hiding it would tear holes into every text."""


def _without(secrets: Iterable[str], error: StartFailed) -> StartFailed:
    """Return `error` with each of `secrets` hidden: servers like to quote what they were given."""

    def hidden(found: Any) -> Any:
        if isinstance(found, list):
            return [hidden(item) for item in found]
        if isinstance(found, str):
            for secret in secrets:
                found = found.replace(secret, "***")
        return found

    details = {key: hidden(value) for key, value in error.details.items()}
    return StartFailed(hidden(error.message), hint=hidden(error.hint), details=details)


def lacking(server: ServerEntry, known: PackageChoice | None) -> str | None:
    """Return what the registry knows the server to want and the manifest does not give, in words.

    Required arguments first, then what must be there on the machine, then the network.
    """
    if known is None:
        return None
    arguments = lacking_arguments(server, known)
    if arguments is not None:
        return arguments
    if known.needs_at_start:
        return f"it needs {known.needs_at_start}"
    return "it needs the network when it starts" if known.network == "start" else None


def lacking_arguments(server: ServerEntry, known: PackageChoice) -> str | None:
    """Return which arguments the registry calls required and the manifest does not give, in words.

    Not every server that lacks one ends: some start, and can do nothing.
    """
    needed = known.required_arguments
    if not needed or server.args:
        return None
    shown = ", ".join(f"`{usage(argument)}`" for argument in needed)
    secret = next((argument for argument in needed if argument.secret), None)
    if secret is None:
        return f"it needs {shown}; give it with `--arg`"
    key = secret_arguments.label(secret.name or secret.placeholder)
    return (
        f"it needs {shown}, a secret: `octave secret set {server.name} {key}`, then "
        f"`{install_command(server.name, known)}`"
    )
