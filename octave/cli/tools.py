"""`tools` and `call`: what servers offer, and using it."""

import base64
import binascii
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from octave.cli.arguments import arguments_of
from octave.cli.completion import server_names, tool_names
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, write, write_json
from octave.cli.reach import Runtime, reach
from octave.cli.schema import signature
from octave.errors import (
    TOOL_ERROR_EXIT,
    CallTimedOut,
    OctaveError,
    RuntimeNotRunning,
    ServerNotFound,
    ToolNotFound,
    UsageError,
    did_you_mean,
)
from octave.home import Workspace
from octave.packages import manifest, workspaces
from octave.packages.manifest import Manifest
from octave.remote import Remote

APPROVAL_MARKS = {
    "new": "not approved yet",
    "changed": "changed since it was approved",
    "annotations": "annotations changed since it was approved",
    "unreadable": "cannot be approved, as it reads in two ways",
}
"""By the words of `_approval`."""
TIMEOUT_S = 60.0
"""A person at a terminal waits no longer without having said so."""


def tools(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Argument(metavar="SERVER", autocompletion=server_names)
    ] = None,
    *,
    schema: Annotated[bool, typer.Option("--schema", help="The input schemas too.")] = False,
) -> int:
    """List tools as signatures one can read."""
    terms = manners(context)
    workspace = terms.workspace()
    wanted = _manifest_with(workspace, server)
    found = _known_tools(workspace, wanted, server)
    if terms.as_json:
        write_json(found)
        return 0
    for tool in found:
        name = tool["qualifiedName"] if server is None else tool.get("name")
        write(_line(signature(str(name), tool.get("inputSchema"))))
        if "_problem" in tool:
            write(f"    not shown to AI tools: {_line(str(tool['_problem']))}")
        if "_approval" in tool:
            write(f"    {APPROVAL_MARKS[tool['_approval']]}: `octave approve {tool['server']}`")
        summary = str(tool.get("description") or "").strip().partition("\n")[0]
        if summary:
            write(f"    {_line(summary)}")
        if schema:
            for line in json.dumps(tool.get("inputSchema"), indent=2).splitlines():
                write(f"    {safe(line)}")
    if not found and not terms.quiet:
        tell(f"no tools are known yet; `octave start {server or '--all'}` asks for them")
    return 0


def call(
    context: typer.Context,
    server: Annotated[str, typer.Argument(metavar="SERVER", autocompletion=server_names)],
    tool: Annotated[str, typer.Argument(metavar="TOOL", autocompletion=tool_names)],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Also KEY:=JSON and KEY=@FILE."),
    ] = None,
    *,
    args: Annotated[
        str | None, typer.Option("--args", metavar="JSON", help="All arguments; `-`: from stdin.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="DIR", help="Keep images and audio there.")
    ] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=0.001, help="So long for the answer."),
    ] = TIMEOUT_S,
) -> int:
    """Call a tool and print its result."""
    terms = manners(context)
    workspace = terms.workspace()
    _manifest_with(workspace, server)
    if save is not None:
        _make_folder(save)
    with reach(workspace) as runtime, _Progress(terms) as progress:
        definition = _definition(runtime, server, tool, timeout)
        params = {
            "server": server,
            "tool": tool,
            "arguments": arguments_of(words or (), args, definition.get("inputSchema")),
            "timeoutSeconds": timeout,
        }
        raw = runtime.request_raw("octave/call", params, progress.show)
    result = _parsed(raw)
    if not terms.as_json:
        _show_result(result, save)
    elif sys.stdout.isatty():
        # For eyes: nothing in it that a terminal would act upon.
        write_json(result)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(raw + b"\n")
    return TOOL_ERROR_EXIT if result.get("isError") is True else 0


def _line(text: str) -> str:
    """Return foreign text as part of one line: a line break must not forge the next."""
    return safe(text).replace("\n", "\\n")


def _manifest_with(workspace: Workspace, server: str | None) -> Manifest:
    """Return the manifest, in which `server` is there and enabled; None: any.

    Raises:
        ServerNotFound: it is not.
    """
    wanted = manifest.load(workspace.manifest)
    if server is not None and server not in wanted.servers:
        raise ServerNotFound(
            f"`{server}` is not installed here",
            hint=did_you_mean(server, wanted.servers) or f"octave install {server}",
        )
    if server is not None and not wanted.servers[server].enabled:
        raise ServerNotFound(
            f"`{server}` is disabled", hint=f"take `enabled = false` out of `{workspace.manifest}`"
        )
    return wanted


def _known_tools(
    workspace: Workspace, wanted: Manifest, server: str | None
) -> list[dict[str, Any]]:
    try:
        with Remote.connect(workspace) as remote:
            found: list[dict[str, Any]] = remote.request("octave/tools", {"server": server})
            return found
    except RuntimeNotRunning:
        workspaces.require_trust(workspace, wanted)
    names = [server] if server else [each.name for each in wanted.servers.values() if each.enabled]
    return [tool for name in names for tool in _kept_tools(workspace, wanted, name)]


def _kept_tools(workspace: Workspace, wanted: Manifest, server: str) -> list[dict[str, Any]]:
    """Return what the catalogue on disk has, in the runtime's form."""
    from octave.gateway import schemas
    from octave.gateway.listing import listing
    from octave.gateway.naming import qualified
    from octave.packages import approvals
    from octave.packages.launch import ToolFilter
    from octave.packages.offered import Offered
    from octave.runtime import wire

    entry = wanted.servers[server]
    try:
        kept = wire.member(workspace.catalogue(server).read_bytes(), "lists", "tools") or b"[]"
        items = wire.elements(kept)
        tools = [json.loads(schemas.readable(item)) for item in items]
    except (OSError, ValueError, RecursionError):
        return []
    shown = ToolFilter(entry.tools_allow, entry.tools_deny)
    approved = approvals.of_catalogue(workspace, server, wanted.settings.definitions)
    known = listing(server, Offered(b"{}", {"tools": tuple(items)}), shown, approved)
    return [
        {
            "server": server,
            "qualifiedName": qualified(server, str(tool.get("name", ""))),
            **({"_problem": known.problems[position]} if position in known.problems else {}),
            **({"_approval": found} if (found := known.unapproved.get(position)) else {}),
            **tool,
        }
        for position, tool in enumerate(tools)
        if isinstance(tool, dict) and position not in known.denied
    ]


def _offered(
    runtime: Runtime, server: str, timeout_s: float, *, fresh: bool
) -> list[dict[str, Any]]:
    asked = {"server": server, "fresh": fresh}
    try:
        raw = runtime.request_raw("octave/tools", asked, timeout_s=timeout_s)
    except CallTimedOut as error:
        raise CallTimedOut(
            f"`{server}` did not say within {timeout_s:g} s which tools it has",
            hint="allow more time with `--timeout`",
        ) from error
    found: list[dict[str, Any]] = json.loads(raw)
    return found


def _definition(runtime: Runtime, server: str, tool: str, timeout_s: float) -> dict[str, Any]:
    """Return the definition of the tool that the person means; starts the server if need be."""
    # What is known of a sleeping server may be old: a name that is not in it is worth a look.
    for fresh in (False, True):
        offered = _offered(runtime, server, timeout_s, fresh=fresh)
        for definition in offered:
            if tool in (definition.get("name"), definition.get("qualifiedName")):
                return definition
    names = [str(definition.get("name")) for definition in offered]
    raise ToolNotFound(
        f"`{server}` has no tool `{tool}`",
        hint=did_you_mean(tool, names) or f"octave tools {server}",
    )


class _Progress:
    """The newest progress of a call, in one line of the terminal; nothing elsewhere."""

    def __init__(self, terms: Manners) -> None:
        self._is_shown = sys.stderr.isatty() and not terms.quiet
        self._is_dumb = os.environ.get("TERM") == "dumb"
        self._is_dirty = False

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_dirty:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, method: str, params: Any) -> None:
        """Take a notification of the runtime."""
        if method != "octave/progress" or not self._is_shown:
            return
        told = params.get("params") or {}
        parts = [str(told.get("progress", ""))]
        parts += [f"of {told['total']}"] if "total" in told else []
        parts += [str(told["message"])] if "message" in told else []
        text = f"progress: {_line(' '.join(parts))}"
        if self._is_dumb:
            tell(text)
            return
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        sys.stderr.write(f"\r\x1b[K{text[: columns - 1]}")
        sys.stderr.flush()
        self._is_dirty = True


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        result = json.loads(raw)
    except RecursionError as error:
        raise OctaveError("the result is nested too deeply to be read") from error
    return result if isinstance(result, dict) else {}


def _show_result(result: dict[str, Any], save: Path | None) -> None:
    content = result.get("content")
    blocks = content if isinstance(content, list) else []
    for block in blocks:
        if isinstance(block, dict):
            _show_block(block, save)
    if not blocks and "structuredContent" in result:
        write_json(result["structuredContent"])


def _show_block(block: dict[str, Any], save: Path | None) -> None:
    kind = block.get("type")
    resource = block.get("resource")
    if kind == "text":
        write(safe(str(block.get("text", ""))).removesuffix("\n"))
    elif kind in {"image", "audio"}:
        _show_media(block, save)
    elif kind == "resource" and isinstance(resource, dict):
        write(safe(str(resource.get("text", resource.get("uri")))))
    elif kind == "resource_link":
        write(safe(str(block.get("uri"))))
    else:
        write(safe(json.dumps(block, ensure_ascii=False)))


def _show_media(block: dict[str, Any], save: Path | None) -> None:
    kind, media_type = str(block["type"]), str(block.get("mimeType", ""))
    try:
        data = base64.b64decode(str(block.get("data", "")))
    except binascii.Error:
        tell(f"warning: the {kind} is not valid base64")
        return
    if save is None:
        write(_line(f"[{kind} {media_type}, {len(data)} bytes; `--save DIR` keeps it]"))
    else:
        write(str(_save(data, save, kind, media_type)))


def _save(data: bytes, folder: Path, kind: str, media_type: str) -> Path:
    """Write a new file, named after what it holds; those that are there stay as they are."""
    subtype = media_type.rpartition("/")[2].partition("+")[0].removeprefix("x-")
    suffix = "".join(c for c in subtype if c.isascii() and c.isalnum()) or "bin"
    for number in itertools.count(1):
        path = folder / f"{kind}-{number}.{suffix}"
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            continue
        return path
    raise AssertionError


def _make_folder(path: Path) -> None:
    # Before the call: afterwards a result that cannot be kept would be lost.
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot save to `{path}`: {error.strerror}", hint="--save DIR") from error
