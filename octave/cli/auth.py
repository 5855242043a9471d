"""`auth`: logging in to a remote server, and out of it."""

import os
import threading
import webbrowser
from typing import Annotated
from urllib.parse import urlsplit

import typer

from octave.cli.completion import server_names
from octave.cli.options import manners
from octave.cli.output import safe, tell, write, write_json
from octave.errors import (
    OctaveError,
    RuntimeNotRunning,
    ServerNotFound,
    UsageError,
    did_you_mean,
)
from octave.home import Workspace
from octave.packages.launch import Endpoint, LaunchSpec
from octave.packages.specs import launch_specs
from octave.remote import Remote

_TOUCHED = frozenset({"ready", "starting", "backoff", "failed"})
"""States in which a server still has the old login, or failed for want of one."""


def auth(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=server_names)],
    *,
    logout: Annotated[bool, typer.Option("--logout", help="Forget the login.")] = False,
    client_id: Annotated[
        str | None,
        typer.Option(
            "--client-id",
            metavar="ID",
            help="As whom Octave is known there; an https address is that of a metadata document.",
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            "--port", min=0, max=65535, help="Where the browser comes back to; default: any."
        ),
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address to open.")
    ] = False,
) -> int:
    """Log in to a remote server with a browser."""
    terms = manners(context)
    workspace = terms.workspace()
    spec, endpoint = _remote(workspace, name)
    if (
        client_id is not None
        and client_id.startswith("https://")
        and not _names_document(client_id)
    ):
        raise UsageError("`--client-id` needs an address with a path, or an id")
    if logout:
        status, more = _leave(spec)
    else:
        # Imported late: it brings an event loop, and then the SDK.
        from octave.runtime.remote_login import Wish, login

        def show(address: str) -> None:
            _show(name, address, opens=not no_browser)

        more = {}
        status = "logged_in" if login(spec, Wish(show, client_id, port)) else "not_needed"
    if status in {"logged_in", "logged_out"}:
        _take_over(workspace, name)
    host = urlsplit(endpoint.url).netloc
    if terms.as_json:
        write_json({"name": name, "status": status, "host": host, **more})
    elif not terms.quiet:
        write(f"{name}: {_WORDS[status].format(host=safe(host))}")
    return 0


_WORDS = {
    "logged_in": "logged in at {host}",
    "logged_out": "logged out of {host}",
    "not_logged_in": "was not logged in at {host}",
    "not_needed": "{host} asks for no login",
}


def _remote(workspace: Workspace, name: str) -> tuple[LaunchSpec, Endpoint]:
    """Return the server and where it is.

    Raises:
        ServerNotFound: the manifest has none of that name.
        UsageError: nobody logs in to it.
    """
    specs = {spec.name: spec for spec in launch_specs(workspace, os.environ)}
    if name not in specs:
        raise ServerNotFound(f"no server `{name}`", hint=did_you_mean(name, specs) or "octave list")
    endpoint = specs[name].endpoint
    if endpoint is None:
        raise UsageError(f"`{name}` runs on this machine, so there is nothing to log in to")
    if endpoint.tokens is None:
        raise UsageError(
            f"`headers` of `{name}` say who asks, so there is nothing to log in to",
            hint=f"remove `Authorization` from [servers.{name}] to log in instead",
        )
    return specs[name], endpoint


def _leave(spec: LaunchSpec) -> tuple[str, dict[str, bool]]:
    """Log out; return the status, and what is told beside it."""
    from octave.runtime.remote_login import logout  # as above

    left = logout(spec)
    if left.untold is not None:
        tell(f"warning: `{safe(left.untold)}` could not be told: there the login may go on")
    return "logged_out" if left.was_logged_in else "not_logged_in", {"revoked": left.is_revoked}


def _names_document(address: str) -> bool:
    return urlsplit(address).path not in {"", "/"}


def _show(name: str, address: str, *, opens: bool) -> None:
    host = urlsplit(address).netloc
    tell(f"to log in to `{name}`, consent at `{safe(host)}`:")
    tell(f"  {safe(address)}")
    if opens:
        # Some browsers return when they are closed, and it comes back to this process.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _take_over(workspace: Workspace, name: str) -> None:
    """Let a running runtime use the new login, where it still has another."""
    try:
        with Remote.connect(workspace) as remote:
            found = remote.request("octave/status", {"names": [name]})
            if {server["state"] for server in found["servers"]} & _TOUCHED:
                remote.request("octave/restart", {"names": [name]})
    except RuntimeNotRunning:
        return
    except OctaveError as error:
        # The login is stored; only the runtime does not use it yet.
        tell(f"warning: the running runtime did not take it over: {safe(error.message)}")
