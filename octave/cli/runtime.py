"""`start`, `stop`, `restart`, `status`, `shutdown`: asking a running runtime."""

import os
import sys
import time
from typing import Annotated, Any, NoReturn

import typer

from octave import background
from octave.cli import render
from octave.cli.completion import server_names
from octave.cli.options import Manners, manners
from octave.cli.output import json_text, safe, tell, tell_error, write, write_json
from octave.errors import (
    NotRunning,
    OctaveError,
    RuntimeNotRunning,
    ServerNotFound,
    UsageError,
    common_code,
    did_you_mean,
    from_json,
)
from octave.home import Workspace
from octave.remote import Remote, is_claimed

WATCH_S = 1.0
SHUTDOWN_S = 20.0
"""An ordered stop takes at most 12 s, whatever the servers do."""
SLOW_S = 1.0
"""Work that took longer says how long."""

TAIL_LINES = 5
"""Of a server's last words, in a table of many; the log has them all."""

_FACTS = ("pid", "url", "version", "uptimeSeconds", "memoryBytes")
_HEADINGS = ("NAME", "STATE", "PID", "UPTIME", "MEMORY")
_FIGURES = ("CALLS", "ERRORS", "P50", "P95", "RESTARTS")

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", autocompletion=server_names)]
Every = Annotated[bool, typer.Option("--all", help="All servers of this workspace.")]


def start(context: typer.Context, names: Names = None, *, every: Every = False) -> int:
    """Start servers; brings up the runtime in the background when none is running."""
    terms = manners(context)
    workspace = terms.workspace()
    if names and not background.answers(workspace):
        unknown = _unknown(workspace, names)
        if len(unknown) == len(set(names)):
            # No runtime is needed to say so.
            return _show_results(terms, {"results": unknown, "tookSeconds": 0.0})
    background.start(workspace, os.environ)
    if not names and not every:
        # A runtime that nobody ever asked anything does not stay.
        with Remote.connect(workspace):
            pass
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
    # A runtime outlives the manifest it was started for.
    workspace = terms.workspace(may_be_missing=True)
    try:
        with Remote.connect(workspace) as remote:
            pid = workspace.runtime().get("pid")
            remote.request("octave/shutdown", timeout_s=SHUTDOWN_S)
            if not remote.wait_until_closed(SHUTDOWN_S):
                raise OctaveError(
                    f"the runtime (pid {pid}) did not end within {SHUTDOWN_S:.0f} s",
                    hint=f"kill -9 {pid}",
                )
    except RuntimeNotRunning:
        if is_claimed(workspace):
            raise
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
    try:
        remote = Remote.connect(terms.workspace())
    except RuntimeNotRunning:
        if terms.as_json:
            write_json({"runtime": {"running": False, **dict.fromkeys(_FACTS)}, "servers": []})
        raise
    with remote:
        if watch:
            _watch(terms, remote, names or [])
        found = remote.request("octave/status", {"names": names or []})
    if terms.as_json:
        write_json(found)
    else:
        _show_status(found, names or [])
    states = {server["state"] for server in found["servers"]}
    return NotRunning.exit_code if names and not states <= {"ready", "idle"} else 0


def _watch(terms: Manners, remote: Remote, names: list[str]) -> NoReturn:
    """Show the status again and again, until Ctrl-C or the end of the runtime."""
    in_place = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    while True:
        found = remote.request("octave/status", {"names": names})
        if terms.as_json:
            write(json_text(found))
        else:
            sys.stdout.write("\x1b[H\x1b[J" if in_place else "")
            _show_status(found, names)
        sys.stdout.flush()
        time.sleep(WATCH_S)


def _require_names(verb: str, names: list[str] | None, *, every: bool) -> None:
    if not names and not every:
        raise UsageError(f"`{verb}` needs names, or `--all`", hint=f"octave {verb} --all")


def _act(
    terms: Manners, workspace: Workspace, verb: str, names: list[str] | None, *, every: bool
) -> int:
    quiet = terms.quiet or terms.as_json or not sys.stderr.isatty()
    with Remote.connect(workspace) as remote, render.progress(quiet=quiet) as step:
        step(f"{verb} {' '.join(names) if names else 'all servers'}")
        answer = remote.request(f"octave/{verb}", {"names": names or [], "all": every})
    return _show_results(terms, answer)


def _unknown(workspace: Workspace, names: list[str]) -> list[dict[str, Any]]:
    """Return the results of those `names` the manifest does not have; none if it cannot be read."""
    # Imported late: a running runtime knows better, and it takes as long as the whole verb.
    from octave.packages import manifest

    try:
        servers = manifest.load(workspace.manifest).servers.values()
    except OctaveError:
        return []
    known = [server.name for server in servers if server.enabled]
    return [
        {
            "name": name,
            "status": "unknown",
            "error": ServerNotFound(
                f"no server `{name}`", hint=did_you_mean(name, known) or "octave list"
            ).as_json(),
        }
        for name in dict.fromkeys(names)
        if name not in known
    ]


def _show_results(terms: Manners, answer: dict[str, Any]) -> int:
    results: list[dict[str, Any]] = answer["results"]
    if terms.as_json:
        write_json(answer)
    else:
        for result in results:
            _show_result(result)
        if answer["tookSeconds"] > SLOW_S and not terms.quiet:
            tell(f"took {answer['tookSeconds']:.1f} s")
    return common_code(from_json(result["error"]) for result in results if result.get("error"))


def _show_result(result: dict[str, Any]) -> None:
    if result.get("error"):
        tell_error(from_json(result["error"]), as_json=False)
    else:
        write(f"{result['status']} {result['name']}" + (" (killed)" if "killed" in result else ""))


def _told(terms: Manners, document: dict[str, Any], text: str) -> int:
    if terms.as_json:
        write_json(document)
    elif not terms.quiet:
        tell(text)
    return 0


def _show_status(found: dict[str, Any], names: list[str]) -> None:
    runtime = found["runtime"]
    write(
        f"runtime {runtime['version']}, pid {runtime['pid']}, up"
        f" {render.span(runtime['uptimeSeconds'])}, {render.size(runtime['memoryBytes'])},"
        f" {runtime['url'] or 'no HTTP'}"
    )
    if runtime.get("warning"):
        tell(f"warning: {safe(runtime['warning'])}")
    if found["servers"]:
        render.table(_HEADINGS + _FIGURES, [_status_row(server) for server in found["servers"]])
    for server in found["servers"]:
        if server.get("unapproved"):
            waiting = render.count(server["unapproved"], "tool definition")
            tell(
                f"warning: {waiting} of `{server['name']}` not approved: "
                f"`octave approve {server['name']}`"
            )
        if server["name"] in names:
            _show_availability(server)
        _show_last_error(server)


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


def _show_availability(server: dict[str, Any]) -> None:
    share, down_s = server["availability"], server["downSeconds"]
    if share is not None:
        down = render.span(down_s) if down_s >= 60 else f"{down_s:.1f} s"
        write(f"{server['name']}: available {render.percent(share)} of its time, down for {down}")


def _show_last_error(server: dict[str, Any]) -> None:
    last = server["lastError"]
    if last is None or server["state"] in {"ready", "stopped"}:
        return
    write(f"{server['name']}, {last['at']}: " + safe(last["message"]).replace("\n", "\\n"))
    for line in (last.get("stderrTail") or [])[-TAIL_LINES:]:
        write(f"  | {safe(str(line))}")
    if last.get("hint"):
        write(f"  hint: {safe(last['hint'])}")
