"""Why a remote server cannot be used, as errors: the host is told, never the rest of its URL."""

import os
import socket
import ssl

from octave.errors import AuthorizationNeeded, OctaveError, RemoteUnreachable, StartFailed
from octave.runtime.remote_server import RemoteLink

WORDS_LIMIT = 500
"""Of a stranger's explanations, which may be a whole page."""


def of(link: RemoteLink, error: Exception) -> StartFailed:
    """Return what `error`, met while talking to the server, comes to."""
    if isinstance(error, StartFailed):
        return error
    if isinstance(error, OctaveError):
        return StartFailed(error.message, error.hint, error.details)
    for cause in _causes(error):
        words = _words(cause)
        if words is not None:
            return RemoteUnreachable(
                f"`{link.name}` cannot be reached at `{link.host}`: {words}",
                hint="check the network, and the `url` in octave.toml",
            )
    return lost(link, "broke off the connection")


def lost(link: RemoteLink, words: str) -> RemoteUnreachable:
    """Return the error of a conversation that came to an end; `words` follow the name."""
    return RemoteUnreachable(f"`{link.name}` at `{link.host}` {words}")


def unauthorized(link: RemoteLink, *, was_logged_in: bool) -> AuthorizationNeeded:
    """Return the error of a server that answers 401."""
    if link.endpoint.tokens is None:
        text = f"`{link.name}` at `{link.host}` does not accept the `Authorization` of octave.toml"
        hint = f"change `headers` in [servers.{link.name}]"
    else:
        again = " again: it no longer accepts the last login" if was_logged_in else ""
        text = f"`{link.name}` at `{link.host}` wants a login{again}"
        hint = f"octave auth {link.name}"
    return AuthorizationNeeded(text, hint, {"permanent": True})


def refused(link: RemoteLink, error: Exception) -> AuthorizationNeeded:
    """Return the error of a login that came to nothing."""
    words = str(error)
    if any(isinstance(cause, ValueError) for cause in _causes(error)):
        # What it is about would be quoted behind that: an answer with tokens in it.
        words = words.partition(":")[0]
    return AuthorizationNeeded(
        f"the login to `{link.name}` at `{link.host}` failed: {words[:WORDS_LIMIT]}",
        hint=f"octave auth {link.name}",
        details={"permanent": True},
    )


def _words(cause: BaseException) -> str | None:
    if isinstance(cause, socket.gaierror):
        return "its name is not known"
    if isinstance(cause, ssl.SSLError):
        return f"its certificate or encryption is refused ({cause.reason or 'TLS'})"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ConnectionResetError):
        # asyncio puts the address into its own words for it.
        return os.strerror(cause.errno).lower()
    return None


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return the errors behind it, the innermost first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        if isinstance(error, BaseExceptionGroup):
            found += error.exceptions
        error = error.__cause__ or error.__context__
    return found[::-1]
