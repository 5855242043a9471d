"""Every error Octave raises on purpose, each with a stable code and an exit code.

    OctaveError                 failed              1
    ├── UsageError              usage               2
    │   ├── MissingAnswer       missing_answer      2
    │   └── ManifestError       manifest_invalid    2
    ├── NotRunning              not_running         3
    │   └── RuntimeNotRunning   runtime_not_running 3
    ├── RuntimeSilent           runtime_silent      1
    ├── NotFound                not_found           4
    │   ├── ServerNotFound      server_not_found    4
    │   ├── ToolNotFound        tool_not_found      4
    │   ├── PackageNotFound     package_not_found   4
    │   ├── VersionNotFound     version_not_found   4
    │   └── Ambiguous           ambiguous           4
    ├── StartFailed             start_failed        6
    │   ├── RemoteUnreachable   remote_unreachable  8
    │   └── AuthorizationNeeded authorization_needed 8
    ├── ServerDied              server_died         6
    ├── CallTimedOut            call_timed_out      1
    ├── ServerBusy              server_busy         1
    ├── ProtocolViolated        protocol_violated   1
    ├── InstallFailed           install_failed      1
    ├── StorageFailed           storage_failed      1
    ├── PortTaken               port_taken          1
    ├── IntegrityFailed         integrity_failed    7
    │   └── LockStale           lock_stale          7
    ├── NotTrusted              not_trusted         7
    ├── NotApproved             not_approved        7
    ├── RegistryUnreachable     registry_unreachable 8
    ├── Locked                  locked              9
    ├── Interrupted             interrupted         130
    └── Bug                     bug                 70

A tool that answers ``isError`` is a result, not an exception; `call` exits with 5 for it.
A `Bug` is whatever else arrives at the CLI's edge: a report file is written.
"""

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "failed; or `outdated`, `update --check`, `audit`, `doctor` found something",
    2: "usage, a manifest that cannot be read, or a missing answer when nobody can be asked",
    3: "the runtime, or the server asked about, is not running",
    4: "no such server, tool, prompt, resource, package or version; or ambiguous",
    5: "the tool ran and answered `isError`",
    6: "the server could not be started, or died",
    7: "integrity or consent: a hash, the lockfile, an approval, or trust does not hold",
    8: "a registry or remote server cannot be reached, or wants authorization",
    9: "another process holds the lock",
    70: "a bug in Octave; the path of a report file is printed",
    130: "interrupted",
}
"""The one table of exit codes, printed by `octave help exit-codes`."""

TOOL_ERROR_EXIT = 5
INTERRUPTED_EXIT = 130


class OctaveError(Exception):
    """Octave could not do its part.

    Args:
        message: one sentence, names in backquotes.
        hint: a command to run, or what to change; None when nothing is known to help.
        details: further facts as JSON values, for scripts.
    """

    code = "failed"
    exit_code = 1

    def __init__(
        self, message: str, hint: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    def as_json(self) -> dict[str, Any]:
        """Return ``{"code", "message", "hint", "details"}``, the form of `--json` and the API."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "details": self.details,
        }


class UsageError(OctaveError):
    """The words of the command do not fit."""

    code = "usage"
    exit_code = 2


class MissingAnswer(UsageError):
    """A question must be answered and nobody can be asked."""

    code = "missing_answer"


class ManifestError(UsageError):
    """octave.toml cannot be read, or says something it cannot say."""

    code = "manifest_invalid"


class NotRunning(OctaveError):
    """The server asked about is not running."""

    code = "not_running"
    exit_code = 3


class RuntimeNotRunning(NotRunning):
    """No runtime answers for this workspace."""

    code = "runtime_not_running"


class RuntimeSilent(OctaveError):
    """A runtime has the workspace and does not answer: it hangs, or was stopped."""

    code = "runtime_silent"


class NotFound(OctaveError):
    """Something asked for by name does not exist."""

    code = "not_found"
    exit_code = 4


class ServerNotFound(NotFound):
    """No server of that name is installed, or known to a registry."""

    code = "server_not_found"


class ToolNotFound(NotFound):
    """The server offers no tool of that name."""

    code = "tool_not_found"


class PackageNotFound(NotFound):
    """The package registry has no package of that name."""

    code = "package_not_found"


class VersionNotFound(NotFound):
    """The package has no version that fits."""

    code = "version_not_found"


class Ambiguous(NotFound):
    """More than one thing answers to the name."""

    code = "ambiguous"


class StartFailed(OctaveError):
    """A server did not come up. `details` hold exitCode, signal and stderrTail where known."""

    code = "start_failed"
    exit_code = 6


class RemoteUnreachable(StartFailed):
    """A remote server, or what it is logged in with, could not be reached."""

    code = "remote_unreachable"
    exit_code = 8


class AuthorizationNeeded(StartFailed):
    """A remote server wants to know who asks, and does not, or no longer."""

    code = "authorization_needed"
    exit_code = 8


class ServerDied(OctaveError):
    """A server ended while a call was on its way. `details` as for `StartFailed`."""

    code = "server_died"
    exit_code = 6


class CallTimedOut(OctaveError):
    """No answer, and no progress, within the time allowed."""

    code = "call_timed_out"


class ServerBusy(OctaveError):
    """The server's queue is full."""

    code = "server_busy"


class ProtocolViolated(OctaveError):
    """What a client asks breaks the protocol.

    `details` hold how JSON-RPC says so: ``rpcCode``, and ``rpcData`` where there is any.
    """

    code = "protocol_violated"


class InstallFailed(OctaveError):
    """A package could not be installed; nothing of it was left behind."""

    code = "install_failed"


class StorageFailed(OctaveError):
    """The disk is full, read-only, or belongs to someone else."""

    code = "storage_failed"


class PortTaken(OctaveError):
    """Another program listens on the port."""

    code = "port_taken"


class IntegrityFailed(OctaveError):
    """What arrived, or lies on disk, is not what the lockfile says."""

    code = "integrity_failed"
    exit_code = 7


class LockStale(IntegrityFailed):
    """octave.lock does not answer what octave.toml asks."""

    code = "lock_stale"


class NotTrusted(OctaveError):
    """A manifest outside the home was not trusted yet, or changed since."""

    code = "not_trusted"
    exit_code = 7


class NotApproved(OctaveError):
    """A tool's definition is not the one that was approved, and the manifest blocks such tools.

    `details` hold server, tool, what is different (`finding`) and the lines of a `diff`.
    """

    code = "not_approved"
    exit_code = 7


class RegistryUnreachable(OctaveError):
    """A package registry could not be reached."""

    code = "registry_unreachable"
    exit_code = 8


class Locked(OctaveError):
    """Another process holds the lock."""

    code = "locked"
    exit_code = 9


class Interrupted(OctaveError):
    """The user ended it before it was done."""

    code = "interrupted"
    exit_code = INTERRUPTED_EXIT


class Bug(OctaveError):
    """Octave itself failed. `details["report"]` is the path of a report file."""

    code = "bug"
    exit_code = 70


def _tree(root: type[OctaveError]) -> Iterable[type[OctaveError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def from_json(error: Mapping[str, Any]) -> OctaveError:
    """Rebuild an error that crossed a wire in the shape of `OctaveError.as_json`."""
    kinds = {kind.code: kind for kind in _tree(OctaveError)}
    kind = kinds.get(str(error.get("code")), OctaveError)
    hint = error.get("hint")
    details = error.get("details")
    return kind(
        str(error.get("message", "unknown error")),
        hint=None if hint is None else str(hint),
        details=details if isinstance(details, dict) else None,
    )


_STORAGE_HINTS = {
    errno.ENOSPC: "`octave clean` removes what nobody needs; free some space, then try again",
    errno.EFBIG: "a limit on the size of files is too small; raise it, then try again",
    errno.EIO: "the disk reports a fault; check it, or set OCTAVE_HOME to a folder elsewhere",
    errno.ENOTDIR: "a file is where a folder is needed; move it away, or set OCTAVE_HOME elsewhere",
    errno.EISDIR: "a folder is where a file is needed; move it away, or set OCTAVE_HOME elsewhere",
    errno.ENAMETOOLONG: "set OCTAVE_HOME to a folder with a shorter path",
    errno.ELOOP: "a link leads to itself; remove it, or set OCTAVE_HOME elsewhere",
    errno.EDQUOT: "the disk quota is used up; `octave clean` frees some, then try again",
    errno.EROFS: "the file system is read-only; set OCTAVE_HOME to a folder that can be written",
    errno.EACCES: "check who owns it and who may write, or set OCTAVE_HOME to a folder of your own",
    errno.EPERM: "check who owns it and who may write, or set OCTAVE_HOME to a folder of your own",
}


DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""There is no room for more; what is there can be removed."""
UNWRITABLE = DISK_FULL | {errno.EROFS, errno.EACCES, errno.EPERM}
"""Nothing can be written; what is there can be read."""


def common_code(failures: Iterable[OctaveError]) -> int:
    """Return the exit code that all `failures` have, else 1; 0 for none."""
    codes = {error.exit_code for error in failures}
    return codes.pop() if len(codes) == 1 else min(len(codes), 1)


def storage_hint(error: BaseException) -> str | None:
    """Return what to do about a file or folder that cannot be used; None for other errors."""
    number = error.errno if isinstance(error, OSError) else None
    return _STORAGE_HINTS.get(number) if number is not None else None


def from_os_error(error: OSError) -> OctaveError | None:
    """Return the storage error that explains `error`, or None when it is not about storage."""
    hint = storage_hint(error)
    if hint is None:
        return None
    where = f" `{error.filename}`" if error.filename else ""
    return StorageFailed(f"cannot write{where}: {error.strerror}", hint=hint)


@contextlib.contextmanager
def storage_told() -> Iterator[None]:
    """Raise what is wrong with a file or folder as the error of Octave that says what to do."""
    try:
        yield
    except OSError as error:
        told = from_os_error(error)
        if told is None:
            raise
        raise told from error


@contextlib.contextmanager
def ungrouped() -> Iterator[None]:
    """Raise what a task group met as the error it is, when each is Octave's own or of the disk.

    Callers know no groups; several errors become the first.
    """
    try:
        yield
    except ExceptionGroup as group:
        _, bugs = group.split((OctaveError, OSError))
        if bugs is not None:
            raise
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def nearest(name: str, candidates: Iterable[str], most: int = 3) -> list[str]:
    """Return up to `most` candidates that look like `name`, best first."""
    folded = {candidate.lower(): candidate for candidate in candidates}
    return [folded[match] for match in difflib.get_close_matches(name.lower(), folded, most, 0.6)]


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """Return a hint such as ``did you mean `github`?``, or None when nothing is close."""
    close = nearest(name, candidates)
    return f"did you mean {' or '.join(f'`{match}`' for match in close)}?" if close else None
