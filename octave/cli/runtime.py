"""`start`, `stop`, `restart`, `status`, `shutdown`: asking a running runtime."""

import os
import sys
import time
from typing import Annotated, Any

import typer

from octave import background
from octave.cli import render
from octave.cli.completion import server_names
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, tell_error, write, write_json
from octave.errors import NotRunning, OctaveError, RuntimeNotRunning, UsageError, from_json
from octave.home import Workspace
from octave.remote import Remote

WATCH_S = 1.0
SHUTDOWN_S = 20.0
"""An ordered stop takes at most 12 s, whatever the servers do."""

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=server_names)
]
Every = Annotated[bool, typer.Option("--all", help="All servers of this workspace.")]


def start(context: typer.Context, names: Names = None, *, every: Every = False) -> int:
    """Start servers; brings up the runtime in the background when none is running."""
    terms = manners(context)
    workspace = terms.workspace()
    background.start(workspace, os.environ)
    if not names and not every:
        return _told(terms, {"results": [], "tookSeconds": 0.0}, "the runtime is running")
    return _act(terms, workspace, "start", names, every=every)


def stop(context: typer.Context, names: Names = None, *, every: Every = False) -> int:
    """Stop servers; they stay stopped until `octave start`, across restarts of the runtime."""
    terms = manners(context)
    _require_names("stop", names, every=every)
    return _act(terms, terms.workspace(), "stop", names, every=every)


def restart(context: typer.Context, names: Names = None, *, every: Every = False) -> int:
    """Stop servers and start them again."""
    terms = manners(context)
    _require_names("restart", names, every=every)
    return _act(terms, terms.workspace(), "restart", names, every=every)


def shutdown(context: typer.Context) -> int:
    """Stop the running runtime and all its servers."""
    terms = manners(context)
    workspace = terms.workspace()
    try:
        with Remote.connect(workspace) as remote:
            remote.request("octave/shutdown", {})
            remote.wait_until_closed(SHUTDOWN_S)
    except RuntimeNotRunning:
        return _told(terms, {"stopped": False}, "no runtime was running")
    return _told(terms, {"stopped": True}, "the runtime has stopped")


def status(
    context: typer.Context,
    names: Names = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh in place.")] = False,
) -> int:
    """Show what is running: state, memory, calls, latency, last error."""
    terms = manners(context)
    workspace = terms.workspace()
    with Remote.connect(workspace) as remote:
        while True:
            found = remote.request("octave/status", {"names": names or []})
            if watch and sys.stdout.isatty():
                sys.stdout.write("\x1b[H\x1b[J")
            _show_status(terms, found)
            if not watch:
                break
            sys.stdout.flush()
            time.sleep(WATCH_S)
    states = {server["state"] for server in found["servers"]}
    return NotRunning.exit_code if names and not states <= {"ready", "idle"} else 0


def _require_names(verb: str, names: list[str] | None, *, every: bool) -> None:
    if not names and not every:
        raise UsageError(f"`{verb}` needs names, or `--all`", hint=f"octave {verb} --all")


def _act(
    terms: Manners, workspace: Workspace, verb: str, names: list[str] | None, *, every: bool
) -> int:
    began = time.monotonic()
    with Remote.connect(workspace) as remote:
        answer = remote.request(f"octave/{verb}", {"names": names or [], "all": every})
    results: list[dict[str, Any]] = answer["results"] if isinstance(answer, dict) else answer
    errors = [from_json(result["error"]) for result in results if result.get("error")]
    if terms.as_json:
        took_s = round(time.monotonic() - began, 3)
        write_json({"results": results, "tookSeconds": took_s})
    else:
        for result in results:
            _tell_result(result)
    codes = {error.exit_code for error in errors}
    return codes.pop() if len(codes) == 1 else min(len(codes), 1)


def _tell_result(result: dict[str, Any]) -> None:
    if result.get("error"):
        tell_error(from_json(result["error"]), as_json=False)
    else:
        write(f"{result['status']} {result['name']}")


def _told(terms: Manners, document: dict[str, Any], text: str) -> int:
    if terms.as_json:
        write_json(document)
    elif not terms.quiet:
        tell(text)
    return 0


def _show_status(terms: Manners, found: dict[str, Any]) -> None:
    if terms.as_json:
        write_json(found)
        return
    runtime = found["runtime"]
    write(
        f"runtime {runtime['version']}, pid {runtime['pid']}, up"
        f" {render.span(runtime['uptimeSeconds'])}, {render.size(runtime['memoryBytes'])},"
        f" {runtime['url'] or 'no HTTP'}"
    )
    if runtime.get("warning"):
        tell(f"warning: {runtime['warning']}")
    if found["servers"]:
        render.table(
            (
                "NAME",
                "STATE",
                "PID",
                "UPTIME",
                "MEMORY",
                "CALLS",
                "ERRORS",
                "P50",
                "P95",
                "RESTARTS",
            ),
            [_status_row(server) for server in found["servers"]],
        )
    for server in found["servers"]:
        _tell_last_error(server)


def _status_row(server: dict[str, Any]) -> tuple[str, ...]:
    def milliseconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} ms"

    return (
        server["name"],
        server["state"],
        str(server["pid"] or "-"),
        render.span(server["uptimeSeconds"]),
        render.size(server["memoryBytes"]),
        str(server["calls"]),
        str(server["errors"]),
        milliseconds(server["p50Ms"]),
        milliseconds(server["p95Ms"]),
        str(server["restarts"]),
    )


def _tell_last_error(server: dict[str, Any]) -> None:
    last = server["lastError"]
    if last is None or server["state"] in {"ready", "stopped"}:
        return
    details = {"stderrTail": last.get("stderrTail")}
    error = OctaveError(f"{server['name']}: {safe(last['message'])}", last.get("hint"), details)
    tell_error(error, as_json=False)
