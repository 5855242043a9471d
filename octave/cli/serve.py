"""`serve`: the runtime, in the foreground, detached, or started in the background by others."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Annotated, Any

import anyio
import typer

from octave import background
from octave.cli.options import Manners, manners
from octave.cli.output import json_text, safe, tell, write, write_json
from octave.errors import OctaveError, from_os_error
from octave.home import Workspace
from octave.packages import manifest
from octave.remote import Remote
from octave.runtime.events import Event
from octave.serve import claim
from octave.serve.app import Options, Report
from octave.serve.app import serve as run

LEAVE_S = 1.5
"""For threads that outlive the runtime, before the process ends all the same: the look-up of a name
may take minutes, and Python waits for it."""


def serve(
    context: typer.Context,
    *,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="To listen on; default 127.0.0.1."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="PORT", min=0, max=65535, help="Default 3737; 0: any."),
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow an address that others can reach.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Go to the background.")] = False,
    in_background: Annotated[bool, typer.Option("--background", hidden=True)] = False,
) -> int:
    """Run the supervisor and the HTTP API for this workspace's servers."""
    terms = manners(context)
    workspace = terms.workspace()
    options = Options(in_background, host, port, allow_remote)
    if detach:
        return _detach(terms, workspace, options)
    # Ctrl-C and TERM mean an ordered stop, which the runtime sees to itself.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if in_background:
        return _serve_in_background(workspace, options)
    lines = _Lines(terms, workspace)
    anyio.run(_run, workspace, options, Report(lines.event, lines.ready, lines.warning))
    return 0


async def _run(workspace: Workspace, options: Options, report: Report) -> None:
    await run(workspace, os.environ, options, report)
    # Everything is saved, closed and given back.
    leave = threading.Timer(LEAVE_S, os._exit, [0])
    leave.daemon = True
    leave.start()


def _detach(terms: Manners, workspace: Workspace, options: Options) -> int:
    if background.answers(workspace):
        raise claim.taken(workspace)
    background.start(workspace, os.environ, _words(options))
    with Remote.connect(workspace) as remote:
        runtime = remote.request("octave/status")["runtime"]
    if runtime["warning"]:
        tell(f"warning: {safe(runtime['warning'])}")
    if terms.as_json:
        write_json({"pid": runtime["pid"], "url": runtime["url"]})
    else:
        write(f"ready on {runtime['url'] or runtime['socket']}")
    return 0


def _words(options: Options) -> list[str]:
    words = [] if options.host is None else ["--host", options.host]
    words += [] if options.port is None else ["--port", str(options.port)]
    words += ["--allow-remote"] if options.allow_remote else []
    return words


def _serve_in_background(workspace: Workspace, options: Options) -> int:
    report = Report(ready=background.report_ready, warning=tell)
    try:
        anyio.run(_run, workspace, options, report)
    except OctaveError as error:
        background.report_error(error)
        return error.exit_code
    except OSError as error:
        storage = from_os_error(error)
        if storage is None:
            raise
        background.report_error(storage)
        return storage.exit_code
    return 0


class _Lines:
    """What is told of a runtime in the foreground, a line each, written at once.

    Up to `ready` every server has had a line; then come those of what happens to them.
    """

    _TOLD = frozenset({"ready", "failed", "backoff", "died"})

    def __init__(self, terms: Manners, workspace: Workspace) -> None:
        self._as_json = terms.as_json
        self._servers = manifest.load(workspace.manifest).servers
        self._stopped = claim.read_choices(workspace)
        self._named: set[str] = set()

    def event(self, happened: Event) -> None:
        """Tell what happened to a server."""
        if self._as_json:
            head = {"at": happened.at, "server": happened.server, "event": happened.kind}
            _say(json_text({**head, **happened.details}))
        elif happened.details.get("instance") is not None:
            # Of processes that only some sessions use, what goes wrong.
            if happened.kind in self._TOLD - {"ready"}:
                name = f"{happened.server} ({happened.details['instance']})"
                self._tell(name, happened.kind, happened.details.get("message"))
        elif happened.kind in self._TOLD:
            self._server(happened.server, happened.kind, happened.details.get("message"))

    def ready(self, facts: Mapping[str, object]) -> None:
        """Tell of the servers nothing was heard of, and how the runtime is reached."""
        if self._as_json:
            head = {"at": facts["startedAt"], "server": None, "event": "ready"}
            _say(json_text({**head, **facts}))
            return
        for server in self._servers.values():
            if server.enabled and server.name not in self._named:
                state = "starting" if server.auto_start else "idle"
                self._server(server.name, "stopped" if server.name in self._stopped else state)
        _say(f"ready on {facts['url']}")

    def warning(self, sentence: str) -> None:
        """Tell what does not work."""
        with contextlib.suppress(OSError):
            tell(f"warning: {safe(sentence)}")

    def _server(self, name: str, state: str, reason: Any = None) -> None:
        self._named.add(name)
        self._tell(name, state, reason)

    def _tell(self, name: str, state: str, reason: Any) -> None:
        line = f"{name}: {state}" + (f", {reason}" if reason else "")
        _say(safe(line).replace("\n", "\\n"))


def _say(line: str) -> None:
    # Nobody may be reading any more; the runtime goes on for its clients.
    with contextlib.suppress(OSError):
        write(line)
        sys.stdout.flush()
