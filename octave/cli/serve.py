"""`serve`: the runtime, in the foreground, detached, or started in the background by others."""

import json
import os
import signal
from collections.abc import Mapping
from typing import Annotated, Any

import anyio
import typer

from octave import background
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, write, write_json
from octave.errors import Locked, OctaveError, from_os_error
from octave.home import Workspace
from octave.serve.app import Options, Report
from octave.serve.app import serve as run


def serve(
    context: typer.Context,
    *,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on; default 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Default 3737; 0: any.")
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
    anyio.run(run, workspace, os.environ, options, _report(terms))
    return 0


def _detach(terms: Manners, workspace: Workspace, options: Options) -> int:
    if background.answers(workspace):
        facts = workspace.runtime()
        raise Locked(
            f"a runtime for `{workspace.manifest}` runs already, pid {facts.get('pid')}",
            hint="octave status",
            details={"pid": facts.get("pid"), "url": facts.get("url")},
        )
    background.start(workspace, os.environ, _words(options))
    facts = workspace.runtime()
    if terms.as_json:
        write_json({"pid": facts.get("pid"), "url": facts.get("url")})
    else:
        write(f"ready on {facts.get('url') or facts.get('socket')}")
    return 0


def _words(options: Options) -> list[str]:
    words = [] if options.host is None else ["--host", options.host]
    words += [] if options.port is None else ["--port", str(options.port)]
    words += ["--allow-remote"] if options.allow_remote else []
    return words


def _serve_in_background(workspace: Workspace, options: Options) -> int:
    def ready(facts: Mapping[str, object]) -> None:
        background.report_ready(facts)

    try:
        anyio.run(run, workspace, os.environ, options, Report(ready=ready, warning=tell))
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


def _report(terms: Manners) -> Report:
    def event(happened: Any) -> None:
        if terms.as_json:
            write(
                json.dumps({"at": happened.at, "server": happened.server, "event": happened.kind})
            )
        elif happened.kind in {"ready", "failed", "backoff", "died"}:
            reason = happened.details.get("message")
            write(safe(f"{happened.server}: {happened.kind}" + (f", {reason}" if reason else "")))

    def ready(facts: Mapping[str, object]) -> None:
        if terms.as_json:
            write(json.dumps({"event": "ready", **facts}))
        else:
            write(f"ready on {facts.get('url') or facts.get('socket')}")

    return Report(event, ready, lambda text: tell(f"warning: {text}"))
